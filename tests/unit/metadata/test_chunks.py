"""Where each file format keeps its texts."""

import io
import json

import pytest
from PIL import Image, features
from PIL.PngImagePlugin import PngInfo

from mindseye.errors import ImageError
from mindseye.metadata import exif, format_infotext, infotext, read, texts
from mindseye.metadata.chunks import chunks_of, user_comment
from mindseye.pictures import save_lossy, save_png
from mindseye.request import Request, Result

TEXT = "a fox, 漢字 é\nNegative prompt: blur\nSteps: 3, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x768"


def exif_of(values, ifd=0x8769):
    made = Image.Exif()
    (made.get_ifd(ifd) if ifd else made).update(values)
    return made.tobytes()


def result(**changes):
    image = Image.new("RGB", (24, 16), "red")
    request = Request(prompt="a 漢 fox", size=(24, 16), seed=7, steps=20, guidance=4.5, sampler="euler", **changes)
    return Result(images=(image, image), seeds=(7, 8), request=request, seconds=1.5, weights={"unet": "ab" * 32})


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le", "utf-16"])
@pytest.mark.parametrize("ending", ["jpg", "webp", "avif"])
def test_exif_comments_in_either_byte_order(encoding, ending, tmp_path):
    if ending == "avif" and not features.check("avif"):
        pytest.skip("this PIL has no AVIF")
    path = tmp_path / f"a.{ending}"
    Image.new("RGB", (16, 16)).save(path, exif=exif_of({0x9286: b"UNICODE\0" + TEXT.encode(encoding)}))
    found = read(path)
    assert found.tool == "A1111" and found.fields["prompt"] == "a fox, 漢字 é" and found.fields["size"] == (512, 768)


@pytest.mark.parametrize(
    ("comment", "text"),
    [
        (b"ASCII\0\0\0plain", "plain"),
        (b"UNICODE\0" + "漢字漢字, Steps: 1".encode("utf-16-le"), "漢字漢字, Steps: 1"),
        (b"UNICODE\0" + b"\0a\0", "a\ufffd"),
        (b"UNICODE\0", ""),
        (b"JIS\0\0\0\0\0" + "漢".encode("shift_jis"), "漢"),
        (bytes(8) + "é".encode(), "é"),
        (b"no header", "no header"),
        (b"", None),
        (None, None),
        (7, None),
    ],
)
def test_user_comments(comment, text):
    assert user_comment(comment) == text


def test_gif_and_jpeg_comments(tmp_path):
    picture = Image.new("P", (8, 8))
    picture.save(tmp_path / "a.gif", comment=TEXT.encode())
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", comment=TEXT.encode())
    for name in ("a.gif", "a.jpg"):
        assert read(tmp_path / name).fields["seed"] == 5


def test_an_ordinary_comment_is_no_account(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", comment=b"Created with GIMP")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.jpg", exif=exif_of({0x9286: b"ASCII\0\0\0holiday"}))
    assert read(tmp_path / "a.jpg") is None and read(tmp_path / "b.jpg") is None


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "iTXt packed"])
def test_every_kind_of_png_text(kind, tmp_path):
    info = PngInfo()
    text = TEXT if "iTXt" in kind else TEXT.replace("漢字", "x")
    if "iTXt" in kind:
        info.add_itxt("parameters", text, zip="packed" in kind)
    else:
        info.add_text("parameters", text, zip=kind == "zTXt")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    assert read(tmp_path / "a.png").fields["seed"] == 5


def test_texts_after_the_pixels_and_of_a_picture_cut_short(tmp_path):
    stream = io.BytesIO()
    info = PngInfo()
    info.add(b"tEXt", b"parameters\0" + TEXT.replace("漢字", "").encode("latin-1"), after_idat=True)
    Image.effect_noise((64, 64), 50).save(stream, "PNG", pnginfo=info)
    assert read(stream.getvalue()).fields["steps"] == 3
    save_png(Image.effect_noise((64, 64), 50).convert("RGB"), tmp_path / "b.png", {"parameters": TEXT})
    cut = (tmp_path / "b.png").read_bytes()[:1000]
    assert read(cut).fields["steps"] == 3


def test_comfys_names_in_camera_fields(tmp_path):
    graph = {"1": {"class_type": "KSampler", "inputs": {"seed": 4, "steps": 9, "cfg": 1, "positive": ["2", 0]}},
             "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["9", 0]}}}  # fmt: skip
    values = {0x0110: "prompt:" + json.dumps(graph), 0x010F: 'workflow:{"nodes": []}'}
    Image.new("RGB", (8, 8)).save(tmp_path / "a.webp", exif=exif_of(values, None))
    found = read(tmp_path / "a.webp")
    assert (found.tool, found.fields["seed"], found.fields["prompt"]) == ("ComfyUI", 4, "a fox")
    assert "workflow" in found.fields["extra"]


def test_xmp_of_draw_things(tmp_path):
    made = {"c": 'a "quoted" fox & co', "uc": "blur", "seed": 3, "sampler": "DPM++ 2M Karras", "size": "512x640",
            "steps": 22, "scale": 6.5, "model": "dream_v8_f16.ckpt", "lora": [{"model": "ink.ckpt", "weight": 0.5}],
            "seed_mode": "Scale Alike", "strength": 1}  # fmt: skip
    inside = json.dumps(made).replace("&", "&amp;").replace('"', "&quot;")
    info = PngInfo()
    info.add_itxt(
        "XML:com.adobe.xmp",
        f"<x><exif:UserComment><rdf:Alt><rdf:li>{inside}</rdf:li></rdf:Alt></exif:UserComment></x>",
    )
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    found = read(tmp_path / "a.png")
    assert found.tool == "Draw Things" and found.fields["prompt"] == 'a "quoted" fox & co'
    assert found.fields["size"] == (512, 640) and found.fields["model"] == "dream_v8_f16"
    assert found.fields["loras"] == ({"name": "ink", "weight": 0.5},) and "strength" not in found.fields


@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_ours_in_exif_are_read_back_whole(ending, tmp_path):
    made = result(options={"shift": 3.0})
    path = tmp_path / f"a.{ending}"
    assert save_lossy(made.images[1], path, exif(made, 1))
    found = read(path)
    assert found.tool == "mindseye" and found.account.request["options"] == {"shift": 3.0} and found.account.index == 1
    with Image.open(path) as image:
        comment = image.getexif().get_ifd(0x8769)[0x9286]
    assert user_comment(comment) == format_infotext(infotext(made, 1))


def test_an_account_too_long_for_a_jpeg_leaves_out_the_json_first(tmp_path):
    made = result(negative="x" * 25_000)
    save_lossy(made.images[0], tmp_path / "a.jpg", exif(made, 0))
    found = read(tmp_path / "a.jpg")
    assert found.account is None and found.tool == "mindseye" and found.fields["negative"] == "x" * 25_000
    assert exif(result(negative="x" * 40_000), 0) == b""


def test_both_accounts_travel_in_a_png(tmp_path):
    made = result(negative="é 漢", options={"shift": 3.0})
    save_png(made.images[1], tmp_path / "a.png", texts(made, 1))
    found = read(tmp_path / "a.png")
    account = found.account
    assert account.request["options"] == {"shift": 3.0} and account.request["negative"] == "é 漢"
    assert (account.index, account.weights, account.seconds) == (1, {"unet": "ab" * 32}, 1.5)
    assert found.fields["seed"] == 8 and found.fields["size"] == (24, 16)
    with Image.open(tmp_path / "a.png") as image:
        assert "Seed: 8" in image.text["parameters"] and "Shift: 3.0" in image.text["parameters"]


def test_a_picture_without_any_account(tmp_path):
    save_png(Image.new("RGB", (2, 2)), tmp_path / "a.png")
    assert read(tmp_path / "a.png") is None and read((tmp_path / "a.png").read_bytes()) is None
    assert read(Image.new("RGB", (64, 64))) is None


def test_what_lies_beside_a_picture(tmp_path):
    save_png(Image.new("RGB", (2, 2)), tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a photo of a dog, sitting", encoding="utf-8")
    assert read(tmp_path / "a.png") is None  # a caption
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    assert read(tmp_path / "a.png").fields["steps"] == 3
    (tmp_path / "a.json").write_text('{"prompt": "a dog", "num_inference_steps": 4, "seed": 1}', encoding="utf-8")
    assert read(tmp_path / "a.png").fields["prompt"] == "a dog"
    assert read(tmp_path / "a.txt").fields["steps"] == 3
    with pytest.raises(ImageError, match="no file"):
        read(tmp_path / "none.txt")


@pytest.mark.parametrize(
    "damage", [b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x69\x87" * 40]
)
def test_damaged_exif_is_no_exif(damage, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=damage)
    assert read(tmp_path / "a.jpg") is None


def test_chunks_are_texts_only():
    image = Image.new("RGB", (2, 2))
    image.info = {"dpi": (1, 1), "parameters": "x", 5: "y", "comment": b"z"}
    assert chunks_of(image) == {"parameters": "x", "comment": "z"}
