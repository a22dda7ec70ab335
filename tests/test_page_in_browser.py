"""The page in a real browser, over a real server of the demo's models: what it shows is what the client gets."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

import tapehead
from browsing import Page, browsing, served
from tapehead.errors import TapeheadError
from tapehead.operations import Result
from tapehead.wire.messages import MSGPACK, encode_reply

pytestmark = [pytest.mark.browser, pytest.mark.slow]

JACOBIAN = "#model=sunspots&operation=jacobian&of=lstm.h[-1]&wrt=inputs&input=example"
SALIENCY = "#model=sunspots&operation=saliency&target=outputs[0]&input=example"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served() as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[tapehead.Client]:
    with tapehead.Client(url, timeout=120.0) as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing() as browser:
        yield browser


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    yield Page(context.new_page())
    context.close()


def test_the_page_opens_with_a_first_answer_and_asks_nobody_else(page: Page, url: str) -> None:
    page.open(url, pictures=2)
    assert page.said == []
    assert {re.match(r"\w+:(//[^/]+)?", one)[0] for one in page.asked} <= {url, "data:", "blob:"}  # type: ignore[index]
    assert page.text("#status") == f"version {tapehead.__version__}"
    assert page.page.locator(".problem").count() == 0


def test_the_pictures_numbers_are_the_clients(page: Page, url: str, client: tapehead.Client) -> None:
    page.open(f"{url}/{JACOBIAN}", pictures=2)
    x = np.array(page.run("async () => (await (await fetch('v2/models/sunspots/example')).json()).inputs.data"))
    value = client.model("sunspots").jacobian(x, of="lstm.h[-1]", wrt="inputs").value
    heat, norms = page.data(0)[0], page.data(1)[0]
    np.testing.assert_array_equal(np.array(heat["z"], np.float32), value[0, :, :, 0])
    np.testing.assert_allclose(norms["y"], np.linalg.norm(value[0, :, :, 0].astype(float), axis=0), rtol=1e-12)
    np.testing.assert_array_equal(page.csv(0).astype(np.float32), value[0, :, :, 0])


def test_the_fitted_decay_is_that_of_the_pictures_in_python(page: Page, url: str) -> None:
    from tapehead.pictures import decay

    norms = (0.83 ** np.arange(30)[::-1] * (1 + 0.2 * np.sin(np.arange(30)))).tolist()
    page.page.goto(url)
    script = "async ([norms]) => (await import('/page/panels.js')).decay(Float64Array.from(norms)).factor"
    factor = page.run(script, norms)
    fitted = decay(np.array(norms))
    assert fitted is not None
    assert factor == pytest.approx(fitted.factor, rel=1e-12)


def test_the_shown_python_and_curl_give_the_pages_numbers(page: Page, url: str) -> None:
    page.open(f"{url}/{SALIENCY}")
    page.page.select_option("[name=method]", "gradient_x_input")
    page.ask()
    drawn = np.array(page.data()[0]["y"])
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(page.text(".python pre"), names)
    np.testing.assert_array_equal(drawn.astype(np.float32), names["answer"].value[0, :, 0])
    line = page.text(".curl pre")
    done = subprocess.run(["sh", "-c", f"{line} --silent --noproxy '*'"], capture_output=True, check=True, timeout=60)
    told = json.loads(done.stdout)["tensors"]["value"]["data"]
    np.testing.assert_array_equal(drawn.astype(np.float32), np.array(told, np.float32)[0, :, 0])


FILES: Mapping[str, Callable[[np.ndarray], bytes]] = {
    "x.csv": lambda x: ("year,number\n" + "\n".join(f"{1900 + n}-01,{v!r}" for n, v in enumerate(x.tolist()))).encode(),
    "x.txt": lambda x: "\n".join(map(repr, x.tolist())).encode(),
    "x.json": lambda x: json.dumps({"inputs": x.reshape(1, -1, 1).tolist()}).encode(),
    "flat.json": lambda x: json.dumps(x.tolist()).encode(),
    "x.npy": lambda x: _npy(x.astype(np.float64)),
    "fortran.npy": lambda x: _npy(np.asfortranarray(np.stack([x, x]).astype(np.float32))),
    "x.msgpack": lambda x: msgpack.packb(
        {"inputs": {"dtype": "float64", "shape": [1, len(x), 1], "data": x.astype("<f8").tobytes()}}
    ),
}


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_files_are_read_as_numpy_reads_them(page: Page, url: str, client: tapehead.Client) -> None:
    x = np.array([12.5, 30.0, 101.25, 55.0, 7.0, 0.5])
    value = client.model("sunspots").saliency(x.reshape(1, -1, 1), target="outputs[0]").value
    page.open(f"{url}/{SALIENCY}")
    for name, made in FILES.items():
        page.page.set_input_files("#file", {"name": name, "mimeType": "", "buffer": made(x)})
        page.holds("#input", f"6 timesteps × 1 feature From {name}.")
        page.ask()
        np.testing.assert_allclose(page.data()[0]["y"], value[0, :, 0], rtol=1e-5, atol=1e-8, err_msg=name)


def test_a_file_that_is_dropped_is_taken(page: Page, url: str) -> None:
    page.open(f"{url}/{SALIENCY}")
    page.run(
        """() => {
            const data = new DataTransfer();
            data.items.add(new File(["1\\n2\\n3"], "dropped.csv"));
            document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}));
        }"""
    )
    page.holds("#input", "3 timesteps")
    assert "dropped.csv" in page.text("#input")


UNREADABLE = {
    "1, 2\n3": "ragged",
    "a b\nc d": "no number",
    "[[1], [2, 3]]": "ragged",
    "": "nothing in it",
    "[[[[1]]]]": "takes any × any × 1",
}


def test_what_cannot_be_read_says_why_and_leaves_the_input_as_it_was(page: Page, url: str) -> None:
    page.open(f"{url}/{SALIENCY}")
    page.page.click("#paste")
    for pasted, said in UNREADABLE.items():
        page.page.fill("#text", pasted)
        page.page.click("#use")
        page.holds("#input.wrong", said)
    page.ask()
    assert len(page.data()[0]["y"]) == 40


def test_a_link_shows_the_same_again_with_its_numbers_and_its_view(page: Page, browser: Any, url: str) -> None:
    page.open(f"{url}/{JACOBIAN}", pictures=2)
    page.page.click("#paste")
    page.page.fill("#text", "10\n20\n35.5")
    page.page.click("#use")
    page.page.fill("[name=of]", "lstm.c[-1, 0:4]")
    page.ask(2)
    page.page.get_by_role("combobox", name="unit of lstm.c[-1, 0:4]").select_option("one")
    page.drawn(1)
    before, address = page.data(), page.page.url
    assert len(address) < 500
    again = Page(browser.new_context().new_page()).open(address)
    assert again.data() == before
    assert again.page.url == address


def test_a_link_of_inputs_too_large_to_travel_says_which_are_missing(page: Page, browser: Any, url: str) -> None:
    page.open(f"{url}/{SALIENCY}")
    numbers = np.random.default_rng(0).normal(size=3000).astype(np.float64)
    page.page.set_input_files("#file", {"name": "long.npy", "mimeType": "", "buffer": _npy(numbers)})
    page.holds("#input", "3000 timesteps")
    page.ask()
    assert len(page.page.url) < 500
    other = Page(browser.new_context().new_page())
    other.page.goto(page.page.url)
    other.page.wait_for_selector("#input.wrong")
    assert "long.npy" in other.text("#input")
    assert other.page.locator(".result").count() == 0


def test_an_error_is_shown_as_the_server_says_it(page: Page, url: str, client: tapehead.Client) -> None:
    page.open(f"{url}/{JACOBIAN}", pictures=2)
    page.page.fill("[name=of]", "lstm.memory[-1]")
    page.page.click("#ask")
    page.page.wait_for_selector(".problem")
    with pytest.raises(TapeheadError) as caught:
        client.model("sunspots").jacobian(np.ones((1, 3, 1)), of="lstm.memory[-1]", wrt="inputs")
    assert page.text(".problem h3") == caught.value.title
    assert page.text(".problem .detail") == caught.value.detail
    assert page.text(".problem small").startswith(caught.value.code)
    assert page.page.get_attribute("#problem", "role") == "alert"
    assert page.page.locator(".result").count() == 1


def test_what_will_be_answered_is_told_beforehand_and_what_cannot_be_too(page: Page, url: str) -> None:
    page.open(f"{url}/{JACOBIAN}", pictures=2)
    page.holds("#estimate", "2.56 kB, about")
    page.page.fill("[name=of]", "nothing")
    page.page.wait_for_selector("#estimate.wrong")
    assert "no point 'nothing'" in page.text("#estimate")


def test_two_answers_stand_beside_one_another_on_one_scale(page: Page, url: str) -> None:
    page.open(f"{url}/{JACOBIAN}", pictures=2)
    page.page.get_by_role("button", name="Keep to compare").click()
    page.page.fill("[name=of]", "lstm.h[10]")
    page.ask(4)
    one, other = page.data(0)[0], page.data(2)[0]
    assert page.page.locator(".pair .result").count() == 2
    assert (one["zmin"], one["zmax"]) == (other["zmin"], other["zmax"])
    assert one["zmax"] == pytest.approx(np.abs([*np.ravel(one["z"]), *np.ravel(other["z"])]).max())
    ranges = page.run("() => [1, 3].map((n) => document.querySelectorAll('.plot')[n].layout.yaxis.range)")
    assert ranges[0] == ranges[1]
    page.page.get_by_label("Same scale in both").uncheck()
    page.drawn(4)
    assert page.data(2)[0]["zmax"] == pytest.approx(np.abs(np.ravel(other["z"])).max())
    again = Page(page.page.context.new_page()).open(page.page.url, pictures=4)
    assert again.data(2)[0]["z"] == other["z"]


def test_a_point_is_chosen_by_click_and_by_keyboard(page: Page, url: str) -> None:
    page.open(f"{url}/{JACOBIAN}", pictures=2)
    page.page.click('[data-point="lstm.c"] text')
    assert page.page.input_value("[name=of]") == "lstm.c[-1]"
    page.page.locator("#diagram [tabindex='0']").focus()
    page.page.keyboard.press("End")
    page.page.keyboard.press("Home")
    page.page.keyboard.press("ArrowRight")
    focused = page.page.evaluate("document.activeElement.dataset.point")
    page.page.keyboard.press("Enter")
    assert page.page.input_value("[name=wrt]") == focused
    assert page.page.get_attribute(f'[data-point="{focused}"]', "aria-pressed") == "true"
    assert page.page.locator("#diagram [tabindex='0']").count() == 1


def test_everything_that_is_worked_has_a_name_and_the_keyboard_reaches_it_in_order(page: Page, url: str) -> None:
    page.open(f"{url}/{JACOBIAN}", pictures=2)
    unnamed = page.run(
        """() => [...document.querySelectorAll("button, input, select, textarea, a, summary, [data-point], .plot")]
            .filter((one) => one.checkVisibility() && !one.closest(".modebar"))
            .filter((one) => !(one.labels?.length || one.getAttribute("aria-label") || one.textContent.trim()))
            .map((one) => one.outerHTML)"""
    )
    assert unnamed == []
    order = list[str]()
    page.page.keyboard.press("Tab")
    while (now := page.page.evaluate("document.activeElement.id")) != "ask":
        order.append(now)
        page.page.keyboard.press("Tab")
        assert len(order) < 60
    wanted = ["skip", "model", "take", "chance", "file", "paste", "operation", "field-of", "field-wrt", "field-lag"]
    assert [one for one in order if one in wanted] == wanted


def test_the_picture_is_told_in_words_and_as_a_table(page: Page, url: str) -> None:
    page.open(f"{url}/{JACOBIAN}", pictures=2)
    told = page.page.locator(".plot").first.get_attribute("aria-label")
    assert told.startswith("∂ lstm.h[-1] / ∂ inputs: heat map, 16 unit of lstm.h[-1] by 40 timestep of inputs. From")
    page.page.get_by_text("Numbers of this picture").first.click()
    table = page.page.locator("figure table").first
    table.locator("tbody tr").nth(15).wait_for()  # the rows are made when the table is opened
    assert table.locator("tbody tr").count() == 16
    z = np.array(page.data()[0]["z"])
    shown = [float(text) for text in table.locator("tbody tr").nth(3).locator("td").all_text_contents()]
    np.testing.assert_allclose(shown, z[3], rtol=1e-3)
    page.holds("#said", "Answered: jacobian of lstm.h[-1] wrt inputs")


def test_nothing_is_wider_than_the_window(page: Page, url: str) -> None:
    page.open(f"{url}/{JACOBIAN}", pictures=2)
    for summary in page.page.locator("details.part > summary").all():
        summary.click()
    for width in (1440, 768, 390, 320):
        page.page.set_viewport_size({"width": width, "height": 844})
        page.until("width => document.scrollingElement.scrollWidth <= width", width)


def test_every_picture_can_be_saved_and_no_policy_is_broken_by_it(page: Page, url: str) -> None:
    page.open(f"{url}/{JACOBIAN}", pictures=2)
    for kind, start in (("PNG", b"\x89PNG"), ("SVG", b"<svg")):
        with page.page.expect_download() as download:
            page.page.get_by_role("button", name=f"as {kind}").first.click()
        assert Path(download.value.path()).read_bytes().startswith(start)
    page.page.hover(".plot .nsewdrag", force=True)
    page.page.wait_for_selector(".hoverlayer .hovertext")
    assert page.said == []


def test_a_key_is_asked_for_and_kept_for_the_tab_alone(page: Page) -> None:
    with served(api_keys=("open sesame",)) as url:
        page.page.goto(url)
        page.page.wait_for_selector("#unlock:not([hidden])")
        assert page.page.is_hidden("#work")
        page.page.fill("#key", "guess")
        page.page.keyboard.press("Enter")
        page.holds("#refused", "none that this server knows")
        page.page.fill("#key", "open sesame")
        page.page.keyboard.press("Enter")
        page.drawn()
        assert page.run("() => [Object.values(sessionStorage), Object.keys(localStorage), document.cookie]") == [
            ["open sesame"],
            [],
            "",
        ]
        assert "open sesame" not in page.page.url + page.page.content()
        assert "$TAPEHEAD_API_KEY" in page.text(".curl pre")
        page.page.click("#forget")
        page.page.wait_for_selector("#unlock:not([hidden])")
        assert page.run("() => sessionStorage.length") == 0


def test_a_server_that_went_away_is_told_and_found_again(page: Page, url: str) -> None:
    page.open(f"{url}/{JACOBIAN}", pictures=2)
    page.page.context.set_offline(True)
    page.page.click("#ask")
    page.page.wait_for_selector(".problem")
    assert page.text(".problem h3") == "The server could not be reached"
    assert page.text("#status") == "not reachable"
    page.page.context.set_offline(False)
    page.ask(2)
    assert page.page.locator(".problem").count() == 0
    assert page.text("#status").startswith("version")


def test_a_model_that_is_still_being_loaded_is_waited_for(page: Page, url: str) -> None:
    told = iter([True, True])
    loading = {"title": "The model is being loaded", "detail": "come again", "code": "loading"}

    def metadata(route: Any) -> None:
        if next(told, False):
            route.fulfill(status=503, json=loading)
        else:
            route.continue_()

    page.page.route("**/v2/models/sunspots", metadata)
    page.page.goto(f"{url}/{SALIENCY}")
    page.holds("#status", "loading sunspots")
    page.drawn()
    assert page.text("#status").startswith("version")
    assert page.page.locator(".problem").count() == 0


def test_a_question_can_be_given_up(page: Page, url: str) -> None:
    page.open(f"{url}/{SALIENCY}")
    held: list[Any] = []
    page.page.route("**/saliency", lambda route: held.append(route))
    page.page.click("#ask")
    page.holds("#ask", "Give up")
    page.page.click("#ask")
    page.holds("#said", "Given up.")
    page.holds("#ask", "Ask")
    assert page.page.locator(".problem").count() == 0


def test_random_numbers_are_said_to_be_random_and_fit_the_model(page: Page, url: str) -> None:
    page.open(f"{url}/#model=co2&operation=jacobian&of=gru.h[-1]&wrt=inputs&input=random", pictures=2)
    assert "Random numbers" in page.text("#input")
    assert "1 sample × 24 timesteps × 3 features" in page.text("#input")
    page.page.route("**/v2/models/co2/example", lambda route: route.fulfill(status=204))
    page.page.click("#take")
    page.holds("#input", "no example beside this model")


def answering(page: Page, operation: str, properties: Mapping[str, Any], result: Result) -> None:
    """Has the page meet a server with one operation more, which gives `result`."""

    def description(route: Any) -> None:
        document = route.fetch().json()
        document["paths"][f"/v2/models/{{model}}/{operation}"] = {
            "post": {
                "summary": "New.",
                "requestBody": {"content": {"application/json": {"schema": {"$ref": f"#/x/{operation}.json"}}}},
            }
        }
        document["components"]["schemas"][f"{operation}.json"] = {"properties": {"inputs": {}, **properties}}
        route.fulfill(json=document)

    def metadata(route: Any) -> None:
        told = route.fetch().json()
        route.fulfill(json={**told, "operations": list(dict.fromkeys([*told["operations"], operation]))})

    def answer(route: Any) -> None:
        if json.loads(route.request.post_data).get("dry_run"):
            route.fulfill(status=404, json={"title": "no"})
        else:
            body = bytes(encode_reply(result, "sunspots", 1, MSGPACK))
            route.fulfill(body=body, content_type=MSGPACK)

    page.page.route("**/openapi.json", description)
    page.page.route("**/v2/models/sunspots", metadata)
    page.page.route(f"**/v2/models/sunspots/{operation}", answer)


def test_an_operation_that_is_new_appears_by_itself_and_is_drawn_by_its_axes(page: Page, url: str) -> None:
    tensor = np.arange(12.0).reshape(1, 3, 4)
    answering(
        page,
        "curvature",
        {
            "of": {"type": "string", "examples": ["lstm.h"]},
            "by": {"type": "array", "items": {"enum": ["gate", "timestep"]}},
            "how": {"type": "string", "enum": ["well", "badly"], "default": "well"},
            "often": {"type": "integer", "minimum": 1, "default": 2},
            "much": {"anyOf": [{"type": "number"}, {"type": "array"}]},
        },
        Result({"value": tensor}, {"value": ("batch", "unit", "timestep")}, {"timings": {"compute": 0.1}}),
    )
    page.open(f"{url}/#model=sunspots&operation=curvature&of=lstm.h&by=[\"gate\"]&often=3&much=[1,2]&input=example")
    np.testing.assert_array_equal(page.data()[0]["z"], tensor[0])
    assert page.page.is_checked("input[value=gate]")
    assert page.page.input_value("[name=often]") == "3"
    assert 'model.curvature(x, of="lstm.h", by=["gate"], often=3, much=[1, 2])' in page.text(".python pre")


def test_weight_gradients_are_lines_by_gate_and_bars_and_say_what_the_loss_does_not_reach(page: Page, url: str) -> None:
    gates = ["input_gate", "forget_gate", "cell_candidate", "output_gate"]
    rng = np.random.default_rng(1)
    by_time, parts = rng.lognormal(size=(4, 40)), rng.normal(size=(40, 1, 64))
    tensors = {"lstm/kernel": by_time, "forecast/kernel": np.array(2.5), "forecast/bias": np.array(0.5)}
    axes = {"lstm/kernel": ("gate", "timestep"), "forecast/kernel": (), "forecast/bias": ()}
    values = {"lstm/kernel:value": parts, "lstm/kernel:weight": np.linspace(0.1, 2, 64).reshape(1, 64)}
    meta = {"gates": {"lstm": gates}, "disconnected": ["other/kernel"], "loss": "mse", "timings": {}}
    every = {**axes, "lstm/kernel:value": ("timestep", "row", "column"), "lstm/kernel:weight": ("row", "column")}
    answering(page, "weight_gradients", {}, Result({**tensors, **values}, every, meta))
    page.open(f"{url}/#model=sunspots&operation=weight_gradients&input=example", pictures=3)
    bars, lines, cloud = page.data(0), page.data(1), page.data(2)
    assert bars[0]["x"] == [2.5, 0.5]
    assert [one["name"] for one in lines] == [gate.replace("_", " ") for gate in gates]
    np.testing.assert_array_equal([one["y"] for one in lines], by_time)
    assert [len(one["x"]) for one in cloud] == [16, 16, 16, 16]
    assert cloud[1]["x"] == pytest.approx(np.linspace(0.1, 2, 64)[16:32])
    assert cloud[1]["y"] == pytest.approx(np.abs(parts.sum(axis=(0, 1)))[16:32])
    assert "The loss does not reach other/kernel" in page.text(".verdict")


def test_a_diagnosis_is_a_verdict_with_findings_and_its_evidence(page: Page, url: str) -> None:
    steps, rng = 40, np.random.default_rng(2)
    tensors = {
        "lstm:influence": 0.8 ** np.arange(steps)[None, ::-1],
        "lstm:singular_values": np.sort(rng.lognormal(size=(1, steps, 4)))[..., ::-1],
        "lstm:spectral_radius": rng.uniform(0.5, 1.5, (1, steps)),
        "lstm:lyapunov": np.array([[-0.1, -0.4, -0.9]]),
        "lstm:saturation": rng.uniform(size=(2, steps, 2)),
    }
    axes = {
        "lstm:influence": ("batch", "timestep"),
        "lstm:singular_values": ("batch", "timestep", "singular_value"),
        "lstm:spectral_radius": ("batch", "timestep"),
        "lstm:lyapunov": ("batch", "exponent"),
        "lstm:saturation": ("gate", "timestep", "side"),
    }
    found = {"severity": "warning", "layer": "lstm", "kind": "vanishing", "number": 0.8, "threshold": 0.95}
    meta = {
        "verdict": {"lstm": "vanishing"},
        "findings": [{**found, "meaning": "The past fades.", "advice": "Raise the bias.", "source": "A paper."}],
        "numbers": {"lstm": {"horizon": 21, "influence": {"rate": {"value": -0.22, "low": -0.3, "high": -0.1}}}},
        "gates": {"lstm": ["input_gate", "forget_gate"]},
        "timings": {},
    }
    answering(page, "diagnose", {}, Result(tensors, axes, meta))
    page.open(f"{url}/#model=sunspots&operation=diagnose&input=example", pictures=6)
    verdict = page.text(".verdict")
    numbers = ("0.8 (threshold 0.95)", "21", "influence rate", "-0.22 (-0.3 to -0.1)")
    for said in ("lstm", "vanishing", "The past fades.", "Raise the bias.", "A paper.", *numbers):
        assert said in verdict
    influence, spectrum, radius, exponents, shut, saturated = (page.data(n) for n in range(6))
    np.testing.assert_allclose(influence[0]["y"], tensors["lstm:influence"][0])
    assert "0.800 a timestep back" in influence[1]["name"]
    np.testing.assert_allclose([one["y"] for one in spectrum], tensors["lstm:singular_values"][0].T)
    np.testing.assert_allclose(radius[0]["y"], tensors["lstm:spectral_radius"][0])
    assert exponents[0]["y"] == [-0.1, -0.4, -0.9]
    np.testing.assert_allclose(shut[0]["z"], tensors["lstm:saturation"][..., 0])
    np.testing.assert_allclose(saturated[0]["z"], tensors["lstm:saturation"][..., 1])
    assert (shut[0]["zmin"], shut[0]["zmax"]) == (0, 1)


def test_every_dtype_that_travels_is_read(page: Page, url: str) -> None:
    tensors = {
        "f2": np.array([0.5, -2.25, 65504], np.float16),
        "f4": np.array([1e-30, np.nan, -np.inf], np.float32),
        "i8": np.array([-(2**40), 7], np.int64),
        "u1": np.array([0, 255], np.uint8),
        "b": np.array([True, False]),
        "none": np.zeros((0, 3)),
    }
    body = bytes(encode_reply(Result(tensors, dict.fromkeys(tensors, ()), {"n": -5, "x": 1.5}), "m", 1, MSGPACK))
    page.page.goto(url)
    told = page.run(
        """async ([bytes]) => {
            const {decode} = await import("/page/msgpack.js"), {unpacked} = await import("/page/tensors.js");
            const {tensors, meta} = decode(Uint8Array.from(bytes));
            return [Object.entries(tensors).map(([name, one]) => [name, [...unpacked(one).values].map(String)]), meta];
        }""",
        list(body),
    )
    read = {name: [float(text) for text in values] for name, values in told[0]}
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(np.array(read[name]), tensor.ravel().astype(np.float64))
    assert told[1] == {"n": -5, "x": 1.5}
