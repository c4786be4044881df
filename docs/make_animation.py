"""Make docs/viewer.gif: the slice viewer on a synthetic brain, moved as a person would, one screenshot a step.

    python docs/make_animation.py

It needs Chromium and playwright, as the tests do, and about a minute.
"""

import shutil
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from xaitools import SliceViewer, attribute, synthetic_brains

PICTURE = Path(__file__).with_name("viewer.gif")
METHODS = {
    "occlusion[4]": "occlusion",
    "integrated_gradients[black]+smoothgrad": "integrated gradients",
    "lrp[alpha1_beta0]": "LRP",
    "layer_cam": "layer-CAM",
}
WINDOW, SIZE = (1000, 820), (800, 656)
"""Pixels of the browser's window, and of the animation."""
SHORT, LONG = 350, 1200
"""Milliseconds: of a step, and of a picture to look at."""


def write_page(path: Path) -> None:
    """The viewer on a patient that the network has not seen, as a page of its own."""
    brains = synthetic_brains(64, spacing=3, atrophy=0.6, seed=0)
    network = learned(brains.images[:62], brains.labels[:62])
    patient = brains[[63]]
    maps = attribute(network, patient.images[:], 1, list(METHODS), steps=10, draws=4)
    SliceViewer(
        patient.images[:],
        {METHODS[name]: values for name, values in maps.items()},
        masks=patient.masks[:],
        mask_name="atrophy",
        affine=brains.affine,
        threshold=12.0,
        voxel=[22, 40, 13],
        compare=list(METHODS.values())[1:],
    ).to_html(path)


def learned(images: Tensor, labels: Tensor) -> nn.Module:
    """A network whose last layer is learned from means and variances, since a training would take minutes."""
    torch.manual_seed(0)
    features = nn.Sequential(
        nn.Conv3d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv3d(6, 6, 3, padding=1), nn.ReLU(), nn.AvgPool3d(2)
    ).eval()
    with torch.no_grad():
        seen = torch.cat([features(image[None]) for image in images])
        control, patient = (seen[labels == label] for label in (0, 1))
        spread = (control.var(0) + patient.var(0)).sqrt() + 1e-3
        distance = (patient.mean(0) - control.mean(0)) / spread
        weight = torch.where(distance.abs() > distance.abs().quantile(0.995), distance / spread, 0)
        head = nn.Linear(weight.numel(), 2)
        head.weight.copy_(torch.stack([-weight.flatten(), weight.flatten()]))
        head.bias.copy_(torch.tensor([1.0, -1.0]) * (weight * seen.mean(0)).sum())
    return nn.Sequential(features, nn.Flatten(), head).eval()


def frames(path: Path) -> Iterator[tuple[Image.Image, int]]:
    """A screenshot and how long it stays, for slices, then methods, then views."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=dict(zip(("width", "height"), WINDOW, strict=True)))
        page.goto(path.as_uri())
        page.locator(".xai-readout:not(:empty)").wait_for()

        def shot(milliseconds: int = SHORT) -> tuple[Image.Image, int]:
            page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
            return picture.resize(SIZE, Image.Resampling.LANCZOS), milliseconds

        def choose(control: str, value: str) -> None:
            page.locator(f"[data-control={control}]").select_option(value)

        def press(key: str) -> None:
            page.locator("canvas").first.focus()
            page.keyboard.press(key)

        yield shot(LONG)
        for _ in range(5):
            press("ArrowUp")
            yield shot()
        for name in list(METHODS.values())[1:]:
            choose("method", name)
            yield shot(LONG)
        choose("view", "planes")
        yield shot(LONG)
        for _ in range(3):
            press("ArrowUp")
            yield shot()
        choose("view", "compare")
        yield shot(LONG)
        for _ in range(4):
            press("ArrowDown")
            yield shot()
        yield shot(LONG)
        browser.close()


def main() -> None:
    """Write the animation."""
    with tempfile.TemporaryDirectory() as folder:
        write_page(Path(folder) / "viewer.html")
        pictures, milliseconds = zip(*frames(Path(folder) / "viewer.html"), strict=True)
    few = {"colors": 256, "method": Image.Quantize.FASTOCTREE, "dither": Image.Dither.NONE}
    first, *others = (picture.quantize(**few) for picture in pictures)
    first.save(
        PICTURE, save_all=True, append_images=others, duration=list(milliseconds), loop=0, optimize=True
    )
    print(f"{PICTURE}: {len(pictures)} pictures, {PICTURE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
