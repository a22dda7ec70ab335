"""`tapehead report MODEL INPUT -o report.html`: a model's verdict and pictures as one file that needs nothing else.

    subject.py    MODEL  -> a client, and the model it means: a file, a folder, a served model, or one of the demo's
    inputs.py     INPUT  -> what is asked about: .npy, .csv, .json, or the demo's example
    sections.py   what is asked of a model, and what each answer is there for
    page.py       sections -> HTML
    run.py        the whole
"""

from tapehead.report.run import write_report

__all__ = ["write_report"]
