"""`tapehead bench`: how fast a model's derivatives come here, beside what its user would write without Tapehead.

questions.py    what a model is asked, and an input of the right shape for it
alternative.py  the same from a compiled gradient tape; the speed of this machine's matrix products
measure.py      calls timed in turns
report.py       the table
run.py          the command
"""
