"""The backend on a real Triton: the same pixels as training, the same answers in any batch, clear errors."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc
from PIL import Image

from data.images import DEFAULT_LIMITS, ImageError, decode_rgb
from data.images import to_pixels as offline_pixels
from serving import golden, parity, server
from serving.backends import pixels
from serving.config import PromotionConfig
from serving.triton import Query, Triton, TritonError
from tests.serving import tiny

LIMITS = {"max_bytes": DEFAULT_LIMITS.max_bytes, "max_pixels": DEFAULT_LIMITS.max_pixels}
SIZE = (48, 36)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def pictures() -> dict[str, bytes]:
    """One picture per way in which files differ."""
    rgb = Image.open(io.BytesIO(tiny.picture((200, 90, 30), 7, (61, 83))))
    turned = Image.Exif()
    turned[0x0112] = 6  # shown rotated by 90 degrees
    deep = Image.fromarray(np.linspace(0, 65535, 61 * 83).reshape(83, 61).astype(np.uint16))
    clear = rgb.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(rgb.size))
    return {
        "jpeg": encoded(rgb, "JPEG"), "grey": encoded(rgb.convert("L"), "JPEG"),
        "cmyk": encoded(rgb.convert("CMYK"), "JPEG"), "rotated": encoded(rgb, "JPEG", exif=turned),
        "palette": encoded(rgb.quantize(16), "PNG"), "transparent": encoded(clear, "PNG"),
        "16 bit": encoded(deep, "PNG"), "webp": encoded(rgb, "WEBP"), "one bit": encoded(rgb.convert("1"), "PNG"),
        "tiny": encoded(rgb.resize((1, 1)), "PNG"), "large": encoded(rgb.resize((700, 900)), "JPEG"),
    }  # fmt: skip


def expected_pixels() -> dict[str, str]:
    return {
        name: hashlib.sha256(offline_pixels(decode_rgb(data), SIZE).tobytes()).hexdigest()
        for name, data in pictures().items()
    }


def test_the_backend_sees_the_pixels_that_training_sees() -> None:
    found = {
        name: hashlib.sha256(pixels.to_pixels(data, SIZE, **LIMITS).tobytes()).hexdigest()
        for name, data in pictures().items()
    }
    assert found == expected_pixels()
    assert len(set(found.values())) == len(found)


def test_so_it_does_in_the_serving_environment(tmp_path: Path) -> None:
    if not server.installed():
        pytest.skip(f"{server.ENVIRONMENT} is missing; `make setup` installs it")
    for name, data in pictures().items():
        (tmp_path / name).write_bytes(data)
    script = (
        "import hashlib, json, pathlib, sys; sys.path.insert(0, sys.argv[1]); import pixels\n"
        "files = pathlib.Path(sys.argv[2]).iterdir()\n"
        "limits = {'max_bytes': 10**8, 'max_pixels': 10**8}\n"
        "made = {f.name: pixels.to_pixels(f.read_bytes(), (48, 36), **limits) for f in files}\n"
        "print(json.dumps({k: hashlib.sha256(v.tobytes()).hexdigest() for k, v in made.items()}))"
    )
    done = subprocess.run(
        [server.ENVIRONMENT / "bin" / "python", "-B", "-c", script, str(Path(pixels.__file__).parent), str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == expected_pixels()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"x" * 300, "more than 200"),
        (b"GIF89a", "not a JPEG"),
        (encoded(Image.new("RGB", (2000, 2000)), "PNG", optimize=True)[:150], "2000 x 2000 pixels"),
        (encoded(Image.new("RGB", (30, 30)), "PNG")[:60], "damaged"),
    ],
)
def test_both_recipes_refuse_the_same_images(data: bytes, words: str) -> None:
    with pytest.raises(pixels.BadImage, match=words):
        pixels.to_pixels(data, SIZE, max_bytes=200, max_pixels=10_000)
    with pytest.raises(ImageError):
        decode_rgb(data, limits=type(DEFAULT_LIMITS)(max_bytes=200, max_pixels=10_000))


def test_single_requests_and_busy_batches_give_the_offline_answers(loaded: Triton) -> None:
    cases, config = golden.read(Path("store/exports/clip/golden")), PromotionConfig(endpoints={})
    queries = [Query(text=c.text, image=c.image, k=len(c.ids)) for c in cases]
    alone = [loaded.search(query) for query in queries]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(loaded.search, queries * 3))
    for answers in (alone, together[: len(cases)], together[len(cases) : 2 * len(cases)], together[-len(cases) :]):
        for case, answer in zip(cases, answers, strict=True):
            assert parity.differences(case, answer, config) == []
            assert (answer.version, answer.record) == (1, tiny.model_of("clip"))


def test_requests_really_share_a_pass(loaded: Triton) -> None:
    statistics = loaded._client.get_inference_statistics("search", as_json=True)["model_stats"][0]
    assert int(statistics["execution_count"]) < int(statistics["inference_count"])


def test_what_was_not_asked_is_nan(loaded: Triton) -> None:
    text = loaded.search(Query(text="red shirt"))
    assert np.isnan(text.match)
    assert np.isnan(text.image_embedding).all()
    assert np.linalg.norm(text.text_embedding) == pytest.approx(1, abs=1e-5)
    both = loaded.search(Query(text="red shirt", image=tiny.picture((200, 30, 30), 1)))
    assert both.match == pytest.approx(float(both.text_embedding @ both.image_embedding), abs=1e-6)


def test_k_counts_products(loaded: Triton) -> None:
    whole = loaded.search(Query(text="blue dress", k=59))
    assert len(set(whole.ids)) == 59
    assert list(whole.scores) == sorted(whole.scores, reverse=True)
    assert loaded.search(Query(text="blue dress", k=3)).ids == whole.ids[:3]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (Query(), "neither `text` nor `image`"),
        (Query(text=" "), "text: empty"),
        (Query(text="red " * 400), "text: 1600 characters, more than 1000"),
        (Query(text="red", k=0), "k: 0 is out of range; ask for 1 to 59"),
        (Query(text="red", k=-5), "k: -5 is out of range"),
        (Query(text="red", k=60), "k: 60 is out of range"),
        (Query(image=b""), "image: the image is empty"),
        (Query(image=b"not an image"), "image: not a JPEG"),
        (Query(image=tiny.picture((9, 9, 9), 1)[:-300]), "image: the image is cut off or damaged"),
    ],
)
def test_a_bad_request_gets_its_reason_and_good_ones_beside_it_their_answer(
    loaded: Triton, query: Query, words: str
) -> None:
    def send(q: Query) -> str:
        try:
            return loaded.search(q).ids[0]
        except TritonError as error:
            return str(error)

    good = Query(text="red shirt")
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(send, [good, query, good, query, good, query]))
    assert all(words in told for told in found[1::2]), found
    assert found[0::2] == [loaded.search(good).ids[0]] * 3


def infer(loaded: Triton, **tensors: np.ndarray) -> grpc.InferResult:
    inputs = [loaded._input(name, value) for name, value in tensors.items()]
    return loaded._client.infer("search", inputs)


def test_several_queries_in_one_request(loaded: Triton) -> None:
    texts = np.array([[b"red shirt"], [b"blue dress"], [b"black watch for men"]], object)
    result = infer(loaded, text=texts, k=np.full((3, 1), 4, np.int32))
    assert result.as_numpy("ids").shape == (3, 4)
    for row, text in enumerate(texts[:, 0]):
        alone = loaded.search(Query(text=text.decode(), k=4))
        assert [i.decode() for i in result.as_numpy("ids")[row]] == alone.ids


def test_k_defaults_to_ten(loaded: Triton) -> None:
    assert infer(loaded, text=np.array([[b"red"]], object)).as_numpy("ids").shape == (1, 10)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"text": np.array([[b"\xff\xfe"]], object)}, "not UTF-8"),
        ({"text": np.array([[b"a"], [b"b"]], object), "k": np.array([[1], [2]], np.int32)}, "same number of products"),
    ],
)
def test_malformed_tensors_are_refused(loaded: Triton, tensors: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(Exception, match=words):
        infer(loaded, **tensors)


def test_json_over_http_works_without_a_client_library(loaded: Triton) -> None:
    body = {
        "inputs": [{"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": ["red shirt"]}],
        "outputs": [{"name": "ids"}, {"name": "scores"}],
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{_server().http}/v2/models/search/infer", data=json.dumps(body).encode()
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        found = json.load(response)
    assert found["model_version"] == "1"
    assert found["outputs"][0]["data"] == loaded.search(Query(text="red shirt")).ids


def test_orders_need_the_secret_and_questions_do_not(loaded: Triton) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{_server().http}/v2/repository/models/search/unload", data=b"{}"
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    assert b"restricted" in refused.value.read()
    with pytest.raises(Exception, match="restricted"):
        loaded._client.unload_model("search")
    assert loaded.ready("search", 1)


def _server() -> server.Server:
    found = server.running()
    assert found is not None
    return found
