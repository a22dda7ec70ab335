"""The one seam: a worker owns one device, its models and the engine, and runs batches.

    protocol.py     what a worker can be asked, and the values that cross: ModelRef, Job, WorkerStatus, WorkerSettings
    station.py      the worker itself, synchronous: an operation's name -> the engine's function    (imports TensorFlow)

    thread.py       carries a station on a thread of this process: notebooks, tests, live models
    child.py        carries it in a process of its own, seen from the event loop: calls, watchdog, death
    child_main.py   that process
    process.py      starts it, relays what it prints, ends it
    channel.py      calls over a socket: who waits for which reply
    transport.py    trees of values and arrays <-> bytes and one descriptor
    memory.py       the shared memory that large arrays lie in
    crossing.py     jobs, results, errors, cards <-> such trees

Everything but `station` and what it imports is free of TensorFlow, so that the process that speaks HTTP is too.
"""
