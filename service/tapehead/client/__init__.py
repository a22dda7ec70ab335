"""The client: two thin shells over flows of plain values.

clients.py     Client and AsyncClient, which drive the flows
models.py      a model as its user holds it
inputs.py      what a caller hands over -> a request
asking.py      what can be asked, each as a flow of calls
many.py        many inputs side by side, answered in order
lengthwise.py  one request a length, where a model cannot take lengths
calls.py       one call, tried until it is answered
answers.py     what comes back
carriers.py    calls over HTTP
inprocess.py   calls to the same application in this process
progress.py    how far a large answer, or many inputs, have come
"""

from tapehead.client.answers import Answer
from tapehead.client.asking import ModelEntry
from tapehead.client.clients import AsyncClient, Client
from tapehead.client.models import Model

__all__ = ["Answer", "AsyncClient", "Client", "Model", "ModelEntry"]
