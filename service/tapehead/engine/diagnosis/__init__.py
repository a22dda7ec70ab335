"""Whether gradients vanish or explode through each recurrent layer, and the evidence.

subject.py         one recurrent cell in the graph, and how cotangents of its states pass back through a step
influence.py       ‖∂h_T/∂s_t‖ over the sequence, taken as the sweep goes
lyapunov.py        Lyapunov exponents by QR;  spectra.py  the local Jacobians and their spectra
gates.py           gates at their bounds, dead units;  finite.py  where a number first is not finite
learning.py        the gradients of the weights over time, where a loss or a point is given
initialisation.py  the variance of a step's Jacobian, against theory
examined.py        the compiled function that takes all of that from one run of the model
fits.py            a straight line with its confidence;  measures.py  the numbers of a layer
passing.py units.py    the numbers held against thresholds, in words;  finding.py  one such;  literature.py  the sources
findings.py        all of a layer's findings, and the verdict
diagnose.py        the operation
"""

from tapehead.engine.diagnosis.diagnose import diagnose

__all__ = ["diagnose"]
