"""The model repository, the models in memory, what is refused at the door, and the device."""

from __future__ import annotations

import weakref
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehead.errors import Internal, OutOfMemory, UnsupportedModel
from tapehead.operations import Request, Result, check
from tapehead.residency import device, screening
from tapehead.residency.repository import Repository
from tapehead.residency.residents import Residents
from tapehead.worker.protocol import Job, ModelRef, WorkerSettings
from tapehead.worker.station import Station

# -- repository --------------------------------------------------------------------------------------------------------


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")


def test_models_lie_in_single_files_and_in_versions(tmp_path: Path) -> None:
    touch(tmp_path / "one.keras", tmp_path / "two" / "3" / "model.keras", tmp_path / "two" / "12" / "model.keras")
    found = Repository(tmp_path).scan()
    assert {name: sorted(versions) for name, versions in found.items()} == {"one": [1], "two": [3, 12]}
    ref = found["two"][12]
    assert (ref.name, ref.version, ref.size) == ("two", 12, 1)
    assert ref.path == str(tmp_path / "two" / "12" / "model.keras")
    assert ref.modified_ns == (tmp_path / "two" / "12" / "model.keras").stat().st_mtime_ns


def test_version_1_of_a_folder_goes_before_a_single_file(tmp_path: Path) -> None:
    touch(tmp_path / "m.keras", tmp_path / "m" / "1" / "model.keras")
    assert Repository(tmp_path).scan()["m"][1].path == str(tmp_path / "m" / "1" / "model.keras")


@pytest.mark.parametrize(
    "file",
    [
        "notes.txt",
        ".hidden.keras",
        ".keras",
        "m/model.keras",
        "m/1/other.keras",
        "m/0/model.keras",
        "m/01/model.keras",
        "m/v1/model.keras",
        "m/-1/model.keras",
        "m/²/model.keras",
        "m/1/model.keras/inside",
        "folder.keras/inside",
    ],
)
def test_other_files_are_left_alone(tmp_path: Path, file: str) -> None:
    touch(tmp_path / file)
    assert Repository(tmp_path).scan() == {}


def test_links_are_followed_inside_the_folder_and_not_out_of_it(tmp_path: Path) -> None:
    inside, outside = tmp_path / "models", tmp_path / "outside"
    touch(inside / "real.keras", outside / "secret.keras", outside / "1" / "model.keras")
    (inside / "again.keras").symlink_to(inside / "real.keras")
    (inside / "out.keras").symlink_to(outside / "secret.keras")
    (inside / "folder").symlink_to(outside)
    (inside / "gone.keras").symlink_to(inside / "nothing")
    (inside / "loop.keras").symlink_to(inside / "loop.keras")
    assert set(Repository(inside).scan()) == {"real", "again"}


@pytest.mark.parametrize("name", ["..", "../real", "/etc/passwd", "a/../real", "real\0", "./real", "", "real.keras"])
def test_no_name_reaches_what_the_folder_does_not_list(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "models" / "real.keras", tmp_path / "real.keras")
    assert name not in Repository(tmp_path / "models").scan()


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="not a folder"):
        Repository(tmp_path / "nowhere")
    repository = Repository(tmp_path)
    tmp_path.rmdir()
    assert repository.scan() == {}


# -- residents ---------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Weights:
    name: str
    bytes: int


class Shelf:
    """Residents of models whose size stands in their name, with a note of what was loaded."""

    def __init__(self, budget: int) -> None:
        self.loaded: list[str] = []
        self.residents: Residents[Weights] = Residents(self.load, lambda ref: ref.size, budget)

    def load(self, ref: ModelRef) -> Weights:
        self.loaded.append(ref.name)
        return Weights(ref.name, ref.size)

    def use(self, name: str, size: int = 10, **rest: Any) -> Weights:
        with self.residents.using(ModelRef(name, 1, f"/{name}", size=size, **rest)) as model:
            return model

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.residents.resident]


def test_the_least_recently_used_is_evicted_when_room_is_needed() -> None:
    shelf = Shelf(30)
    for name in ("a", "b", "c", "a", "d", "a"):
        shelf.use(name)
    assert shelf.names == ["c", "d", "a"]
    assert shelf.loaded == ["a", "b", "c", "d"]
    shelf.use("big", 25)
    assert shelf.names == ["big"]


def test_a_model_in_use_is_never_evicted() -> None:
    shelf = Shelf(30)
    with shelf.residents.using(ModelRef("a", 1, "/a", size=20)) as model:
        with pytest.raises(OutOfMemory, match="beside the models in use"):
            shelf.use("b", 20)
        shelf.residents.evict(("a", 1))
        assert shelf.names == ["a"]
        assert model.name == "a"
    shelf.use("b", 20)
    assert shelf.names == ["b"]


def test_a_live_model_is_never_evicted_and_not_counted() -> None:
    shelf = Shelf(30)
    with shelf.residents.using(ModelRef("live", 1, None, size=0)) as model:
        model.bytes = 1000
    shelf.use("a", 30)
    shelf.residents.evict(("live", 1))
    assert shelf.names == ["live", "a"]


def test_a_model_larger_than_the_budget_is_refused_before_it_is_loaded() -> None:
    shelf = Shelf(30)
    shelf.use("a")
    with pytest.raises(UnsupportedModel, match="raise the budget"):
        shelf.use("big", 31)
    assert shelf.loaded == ["a"]
    assert shelf.names == ["a"]


def test_a_model_that_turns_out_larger_than_its_file_said_is_refused_too() -> None:
    residents: Residents[Weights] = Residents(lambda ref: Weights(ref.name, 50), lambda _: 1, 30)
    with pytest.raises(UnsupportedModel), residents.using(M):
        pass
    assert residents.resident == ()


M = ModelRef("m", 1, "/m")


def test_a_file_that_has_changed_is_loaded_again() -> None:
    shelf = Shelf(30)
    before = shelf.use("a", modified_ns=1)
    assert shelf.use("a", modified_ns=1) is before
    assert shelf.use("a", modified_ns=2) is not before
    assert shelf.names == ["a"]


@settings(max_examples=10)  # an eviction collects garbage, and TensorFlow leaves much to look through
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 12)), min_size=3, max_size=10))
def test_the_budget_is_kept_whatever_is_used(uses: list[tuple[str, int]]) -> None:
    shelf = Shelf(20)
    for name, size in uses:
        shelf.use(f"{name}{size}", size)
        assert sum(each.bytes for each in shelf.residents.resident) <= 20
        assert shelf.names[-1] == f"{name}{size}"


def test_eviction_frees_the_model_and_all_that_was_compiled_for_it(tmp_path: Path) -> None:
    sequential().save(tmp_path / "m.keras")
    station = Station(WorkerSettings(budget_bytes=1 << 20))
    ref = ModelRef("m", 1, str(tmp_path / "m.keras"))
    request = Request({"": np.ones((1, 4, 3), "float32")}, parameters={"of": "rnn.h[-1]", "wrt": "inputs"})
    checked, _ = check(station.load(ref), "jacobian", request)
    (answer,) = station.run([Job("r", ref, "jacobian", checked)])
    assert isinstance(answer, Result)
    with station._residents.using(ref) as model:
        freed = [weakref.ref(model.keras), *(weakref.ref(weight) for weight in model.keras.weights)]
        del model
    station.unload("m", 1)
    assert station.status().resident == ()
    assert [left() for left in freed] == [None] * len(freed)


# -- screening ---------------------------------------------------------------------------------------------------------

PACKAGE = "test_residency"


@keras.saving.register_keras_serializable(PACKAGE)
class Unbuilt(keras.layers.Layer):
    """A two-state cell as one would write it first: its sublayers are built when they are first called."""

    def __init__(self, units: int, **rest: Any) -> None:
        super().__init__(**rest)
        self.units, self.state_size, self.output_size = units, [units, units], units
        self.recurrent = keras.layers.Dense(units)
        self.readout = keras.layers.Dense(units)

    def call(self, inputs: Any, states: Any) -> Any:
        h, c = states
        following = self.recurrent(keras.ops.relu(h))
        carried = c - h + following
        return keras.ops.sigmoid(self.readout(inputs) + carried), [following, carried]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(PACKAGE)
class Built(Unbuilt):
    def build(self, input_shape: Any) -> None:
        self.recurrent.build((None, self.units))
        self.readout.build(input_shape)


@keras.saving.register_keras_serializable(PACKAGE)
class Forgetful(keras.layers.Layer):
    """A layer that does not save what it has learnt."""

    def build(self, _: Any) -> None:
        self.scale = self.add_weight(shape=(3,), initializer="random_normal", name="scale")

    def call(self, inputs: Any) -> Any:
        return inputs * self.scale

    def save_own_variables(self, store: Any) -> None:
        pass

    def load_own_variables(self, store: Any) -> None:
        pass


@keras.saving.register_keras_serializable(PACKAGE)
def cubed(difference_of: Any, and_of: Any) -> Any:
    return keras.ops.mean(keras.ops.abs(difference_of - and_of) ** 3)


def sequential(*layers: Any) -> keras.Model:
    keras.utils.set_random_seed(3)
    middle = layers or (keras.layers.SimpleRNN(4, name="rnn"), keras.layers.Dense(2))
    return keras.Sequential([keras.Input((None, 3)), *middle])


def saved(folder: Path, model: keras.Model) -> str:
    path = str(folder / "model.keras")
    model.save(path)
    return path


@pytest.fixture
def unregistered() -> Iterator[None]:
    """Forgets the classes of this module for a while."""
    registered = keras.saving.get_custom_objects()
    ours = {name: thing for name, thing in registered.items() if name.startswith(PACKAGE)}
    for name in ours:
        del registered[name]
    yield
    registered.update(ours)


@pytest.mark.parametrize(
    "layers",
    [
        (),
        (keras.layers.LSTM, keras.layers.LayerNormalization, keras.layers.Dropout),
        (keras.layers.BatchNormalization, keras.layers.GRU),
    ],
)
def test_a_model_comes_out_of_its_file_as_it_went_in(tmp_path: Path, layers: tuple[Any, ...]) -> None:
    sizes = {keras.layers.LSTM: {"units": 4}, keras.layers.GRU: {"units": 4}, keras.layers.Dropout: {"rate": 0.5}}
    model = sequential(*(kind(**sizes.get(kind, {})) for kind in layers))
    inputs = np.linspace(-1, 1, 2 * 5 * 3).reshape(2, 5, 3).astype("float32")
    loaded = screening.load_keras(saved(tmp_path, model))
    np.testing.assert_array_equal(loaded(inputs), model(inputs))


def test_a_custom_cell_that_builds_its_weights_is_served(tmp_path: Path) -> None:
    model = sequential(keras.layers.RNN(Built(4)))
    inputs = np.ones((1, 3, 3), "float32")
    expected = model(inputs)
    np.testing.assert_array_equal(screening.load_keras(saved(tmp_path, model))(inputs), expected)


@pytest.mark.parametrize("called", [False, True])
def test_a_custom_cell_without_build_is_refused_with_the_advice_to_write_one(tmp_path: Path, called: bool) -> None:
    with pytest.warns(UserWarning, match="does not have a `build"):
        model = sequential(keras.layers.RNN(Unbuilt(4)))
    if called:
        model(np.ones((1, 3, 3), "float32"))
    path = saved(tmp_path, model)
    keras_warns = pytest.warns(UserWarning, match="does not have a `build")
    with keras_warns, pytest.raises(UnsupportedModel, match=r"build\(self, input_shape\)"):
        screening.load_keras(path)


def test_a_file_that_fills_fewer_variables_than_the_model_has_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"not fill all .* left as they were made: .*scale"):
        screening.load_keras(saved(tmp_path, sequential(Forgetful(), keras.layers.SimpleRNN(4))))


def test_classes_that_nothing_registered_are_named_and_import_is_advised(tmp_path: Path, unregistered: None) -> None:
    path = saved(tmp_path, sequential(keras.layers.RNN(Built(4)), keras.layers.Dense(2, activation=cubed)))
    with pytest.raises(UnsupportedModel, match=r"Built.*--import MODULE"):
        screening.load_keras(path)


def test_a_lambda_layer_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, sequential(keras.layers.Lambda(lambda x: 2 * x), keras.layers.SimpleRNN(2)))
    with pytest.raises(UnsupportedModel, match="Lambda layer"):
        screening.load_keras(path)


def test_the_compiled_loss_is_kept_and_the_optimizers_state_is_not(tmp_path: Path) -> None:
    model = sequential()
    model.compile(loss=cubed, optimizer="adam", metrics=["mae"])
    model.fit(np.ones((4, 5, 3)), np.ones((4, 2)), verbose=0)
    path = saved(tmp_path, model)
    loaded = screening.load_keras(path)
    assert loaded.loss is cubed
    assert not any("momentum" in variable.path for variable in loaded.variables)
    assert screening.weigh(path) == sum(4 * int(np.prod(weight.shape)) for weight in model.weights)


def test_a_loss_that_cannot_be_restored_does_not_keep_a_model_from_being_served(
    tmp_path: Path, unregistered: None
) -> None:
    model = sequential()
    model.compile(loss=cubed)
    assert not screening.load_keras(saved(tmp_path, model)).compiled


def damaged(folder: Path, what: str) -> str:
    """A good file, made bad."""
    path = Path(saved(folder, sequential()))
    if what == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif what == "text":
        path.write_text("a model, honestly")
    elif what == "gone":
        path.unlink()
    elif what == "folder":
        path.unlink()
        path.mkdir()
    else:
        rewritten(path, what)
    return str(path)


def rewritten(path: Path, what: str) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    spoilt = {
        "no config": {"config.json": None},
        "no weights": {"model.weights.h5": None},
        "bad config": {"config.json": b"{"},
        "listed config": {"config.json": b"[]"},
        "empty config": {"config.json": b"{}"},
        "bad weights": {"model.weights.h5": b"not hdf5"},
    }[what]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**members, **spoilt}.items():
            if data is not None:
                archive.writestr(name, data)


BAD = ("truncated", "text", "gone", "folder", "no config", "no weights", "bad config", "listed config", "empty config")


@pytest.mark.parametrize("what", [*BAD, "bad weights"])
def test_what_is_no_keras_file_is_refused(tmp_path: Path, what: str) -> None:
    with pytest.raises(UnsupportedModel):
        screening.load_keras(damaged(tmp_path, what))


# -- device ------------------------------------------------------------------------------------------------------------


def test_the_processor_is_the_device_where_there_is_no_gpu() -> None:
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    claimed = device.claim(WorkerSettings(), own_process=False)
    assert (claimed.name, claimed.visible) == ("cpu:0", ("cpu:0",))
    assert 0 < claimed.budget_bytes < claimed.memory_bytes


def test_a_device_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(Internal, match="devices: "):
        device.claim(WorkerSettings(device="gpu:99"), own_process=False)


def test_tensorfloat_32_is_off_inside_and_as_it_was_afterwards() -> None:
    claimed = device.claim(WorkerSettings(), own_process=False)
    for before in (True, False):
        tf.config.experimental.enable_tensor_float_32_execution(before)
        with claimed.using():
            assert not tf.config.experimental.tensor_float_32_execution_enabled()
        assert tf.config.experimental.tensor_float_32_execution_enabled() is before


@pytest.mark.gpu
@pytest.mark.skipif(not tf.config.list_physical_devices("GPU"), reason="there is no NVIDIA card here")
def test_a_gpus_memory_is_known_and_a_share_of_it_is_the_budget() -> None:
    claimed = device.claim(WorkerSettings(device="gpu:0"), own_process=False)
    assert claimed.memory_bytes > 1 << 30
    assert 0 < claimed.budget_bytes < claimed.memory_bytes
