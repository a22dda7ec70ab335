"""A model as its user holds it: what is known of it, and what can be asked of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from tapehead.client.answers import Answer
from tapehead.client.asking import Subject, ask
from tapehead.client.calls import Flow, Manner
from tapehead.client.inputs import Inputs, make_request
from tapehead.client.many import Ending
from tapehead.client.progress import Progress

A = TypeVar("A", covariant=True)
"""What asking gives: an `Answer`, or something to await one from."""

Points = str | Sequence[str]

PATIENCE = 100
"""How often one of many inputs is asked again where the server's queue is full: later ones are eight seconds apart."""


class Model(Generic[A]):
    """A model of a server.

    Every operation takes the inputs first: an array (batch, timesteps, features), a list of sequences (timesteps,
    features), or `{input name: either}`. Sequences of different lengths are padded with zeros at the end and their
    lengths are sent; an array already padded goes with `lengths`. Where a layer cannot take lengths, one request
    a length is sent, and the answers are put together again. `initial_states` are given by their points' names, as an
    answer's `final_states` gives them; parameters that every operation has (`precision`, `dry_run`) go along by name.
    An operation that has no method here is asked by its name: `model.ask("hvp", x, of=…)`, or `model.hvp(x, of=…)`
    where the server has it.
    """

    def __init__(
        self,
        subject: Subject,
        manner: Manner,
        run: Callable[[Flow[Answer]], A],
        run_many: Callable[..., Any],
    ) -> None:
        self._subject = subject
        self._manner = manner
        self._run = run
        self._run_many = run_many

    @property
    def name(self) -> str:
        """The model's name."""
        return self._subject.name

    @property
    def version(self) -> int | None:
        """The version that is asked; None is the highest, whichever that is at the time."""
        return self._subject.version

    @property
    def metadata(self) -> Mapping[str, Any]:
        """All that the server tells of the model: inputs, outputs, points, recurrent layers, weights, operations."""
        return self._subject.metadata

    @property
    def points(self) -> Mapping[str, Any]:
        """The points that can be asked for: `{name: {shape, axes, dtype, differentiable}}`."""
        points: Mapping[str, Any] = self.metadata.get("points", {})
        return points

    @property
    def operations(self) -> Sequence[str]:
        """The operations that the server has."""
        return list(self.metadata.get("operations", ()))

    def ask(
        self,
        operation: str,
        inputs: Inputs,
        *,
        lengths: Any = None,
        initial_states: Mapping[str, Any] | None = None,
        **parameters: Any,
    ) -> A:
        """The answer to any operation of the contract; a parameter that is None is left to its default.

        Raises:
            TapeheadError: as the server says, or `Unreachable`.
        """
        request = make_request(inputs, lengths, initial_states, parameters)
        return self._run(ask(self._subject, operation, request, self._manner))

    @overload
    def map(
        self: Model[Answer],
        inputs: Iterable[Inputs],
        operation: str = ...,
        *,
        return_exceptions: Literal[False] = ...,
        **options: Any,
    ) -> Iterator[Answer]: ...
    @overload
    def map(
        self: Model[Answer],
        inputs: Iterable[Inputs],
        operation: str = ...,
        *,
        return_exceptions: bool,
        **options: Any,
    ) -> Iterator[Ending]: ...
    @overload
    def map(
        self: Model[Awaitable[Answer]],
        inputs: Iterable[Inputs],
        operation: str = ...,
        *,
        return_exceptions: Literal[False] = ...,
        **options: Any,
    ) -> AsyncIterator[Answer]: ...
    @overload
    def map(
        self: Model[Awaitable[Answer]],
        inputs: Iterable[Inputs],
        operation: str = ...,
        *,
        return_exceptions: bool,
        **options: Any,
    ) -> AsyncIterator[Ending]: ...
    def map(
        self,
        inputs: Iterable[Inputs],
        operation: str = "jacobian",
        *,
        concurrency: int = 8,
        progress: bool | Progress | None = None,
        return_exceptions: bool = False,
        **options: Any,
    ) -> Any:
        """The answers to one question about many inputs, in their order: an iterator, asynchronous in an AsyncClient.

            for j in model.map(batches, of="lstm.h[-1]", wrt="inputs"):
                ...

        Nothing is asked before the first answer is wanted, and little more than `concurrency` inputs ahead of the
        answer given last: neither inputs nor answers need fit in memory. A full queue is waited for. `close()`
        (`aclose()`) ends it early.

        Args:
            inputs: any iterable; each of its items is what `ask` takes as inputs.
            operation: the operation's name; `options` are its parameters, lengths and initial states, the same for all.
            concurrency: how many requests are made at a time, each on a connection that is kept.
            progress: called with (inputs answered, inputs in all or None); True shows a bar on standard error, False
                nothing, None a bar in a terminal.
            return_exceptions: gives an input's error in its place. Otherwise it is raised there, once those before it
                are given, and `next` goes on with the input after it.

        Raises:
            BadParameter: concurrency is below 1.
            TapeheadError: while iterating, as `ask`; its text begins with the input's index: `input 3: …`.
        """
        return self._run_many(
            (self._asking(operation, one, **options) for one in inputs),
            concurrency=concurrency,
            total=len(inputs) if isinstance(inputs, Sized) else None,
            progress=progress,
            return_exceptions=return_exceptions,
        )

    def _asking(
        self,
        operation: str,
        inputs: Inputs,
        *,
        lengths: Any = None,
        initial_states: Mapping[str, Any] | None = None,
        **parameters: Any,
    ) -> Flow[Answer]:
        """One of many: what is wrong with the inputs themselves is an error of theirs, too."""
        request = make_request(inputs, lengths, initial_states, parameters)
        manner = replace(self._manner, patience=PATIENCE, quiet=True)
        return (yield from ask(self._subject, operation, request, manner))

    def infer(self, inputs: Inputs, **options: Any) -> A:
        """The model's outputs, each under its own name."""
        return self.ask("infer", inputs, **options)

    def states(self, inputs: Inputs, *, points: Points = (), final_states: bool = False, **options: Any) -> A:
        """The values at points, every recurrent state where none is named, and the states to carry on from."""
        return self.ask("states", inputs, points=points, final_states=final_states, **options)

    def jacobian(self, inputs: Inputs, *, of: Points, wrt: Points, lag: int | None = None, **options: Any) -> A:
        """The Jacobian d of / d wrt, (batch, *of axes, *wrt axes); with `lag`, only d of[t] / d wrt[t - lag]."""
        return self.ask("jacobian", inputs, of=of, wrt=wrt, lag=lag, **options)

    def vjp(self, inputs: Inputs, *, of: Points, wrt: Points, cotangent: Any = None, **options: Any) -> A:
        """A cotangent (ones by default) times the Jacobian, in the shape of `wrt`: what a gradient tape gives."""
        return self.ask("vjp", inputs, of=of, wrt=wrt, cotangent=cotangent, **options)

    def saliency(
        self,
        inputs: Inputs,
        *,
        target: str,
        method: str = "gradient",
        wrt: str = "inputs",
        baseline: Any = None,
        n_steps: int | None = None,
        **options: Any,
    ) -> A:
        """Attributions of one number a sample to the entries of `wrt`, in its shape."""
        asked = {"target": target, "method": method, "wrt": wrt, "baseline": baseline, "n_steps": n_steps}
        return self.ask("saliency", inputs, **asked, **options)

    def weight_gradients(
        self,
        inputs: Inputs,
        *,
        targets: Any = None,
        loss: str | Mapping[str, str] | None = None,
        of: str | None = None,
        by: str | Sequence[str] = (),
        **options: Any,
    ) -> A:
        """The norm of every weight's gradient, of a loss with `targets` (by default the compiled one) or of one number
        a sample, whole or apart by "gate" and by "timestep"; `per_sample`, `values` and `statistics` go along."""
        return self.ask("weight_gradients", inputs, targets=targets, loss=loss, of=of, by=by, **options)

    def diagnose(
        self,
        inputs: Inputs,
        *,
        targets: Any = None,
        loss: str | Mapping[str, str] | None = None,
        of: str | None = None,
        layer: str | None = None,
        thresholds: Mapping[str, float] | None = None,
        **options: Any,
    ) -> A:
        """Whether gradients vanish or explode through each recurrent layer: `meta["verdict"]`, with the evidence; that
        of the weights' gradients too where a loss or a point is given, as to `weight_gradients`."""
        asked = {"targets": targets, "loss": loss, "of": of, "layer": layer, "thresholds": thresholds}
        return self.ask("diagnose", inputs, **asked, **options)

    if not TYPE_CHECKING:  # so that a type checker still finds misspelt methods

        def __getattr__(self, name: str) -> Callable[..., A]:
            if not name.startswith("_") and name in self.operations:
                return partial(self.ask, name)
            raise AttributeError(f"a Model has no attribute or operation {name!r}", name=name, obj=self)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.operations]

    def __repr__(self) -> str:
        version = "" if self.version is None else f" version {self.version}"
        return f"<Model {self.name!r}{version}: {len(self.points)} points; {', '.join(self.operations)}>"
