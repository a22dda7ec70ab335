"""Ours and its peers on one machine, in one run: `make bench`, or `python -m benchmarks.run`.

workloads.py   what is measured: sizes, cells, questions, the least work of each answer
problems.py    a workload's weights and input, the same for everyone
ours.py        the engine's call;  peers/  everyone else's
contest.py     calls timed in turns, after their answers are found to agree
growth.py      the exponent of the cost against timesteps;  pictures.py  the two plots
run.py         every workload: the table, results.json, two plots
serve.py       the same request over HTTP, under load;  plain.py  the servers it is held against
memory.py      the most memory one answer takes, in a process of its own
NOTES.md       what was predicted and measured for each idea
"""
