"""Many waiting requests -> few device calls. Imports no TensorFlow.

    fleet.py       the whole of it: what a server asks, and what it is told
    catalogue.py   which models there are, and how each one stands
    questions.py   what a request asks, held against its model's card
    warming.py     what a model is asked before it is ready
    placement.py   which worker holds which model
    admission.py   how many requests may be inside at once
    lane.py        one worker, kept alive and fed
    backlog.py     what waits for one worker, until it is too late
    batch.py       which of the waiting go together
    observer.py    what can be counted and timed
    speed.py       how fast answers are computed here

A request goes admission -> catalogue -> questions -> placement -> lane: backlog -> batch -> worker.
"""

from tapehead.scheduling.fleet import Fleet
from tapehead.scheduling.observer import Observer, Silent
from tapehead.scheduling.settings import FleetSettings

__all__ = ["Fleet", "FleetSettings", "Observer", "Silent"]
