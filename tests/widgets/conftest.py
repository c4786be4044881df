import numpy as np
import pytest

from xaitools.widgets.layers import encode_colormap


class Painted:
    """What a viewer's canvas shows, one colour a voxel, read back from the browser."""

    def __init__(self, page, index=0):
        self.page = page
        self.root = page.locator(".xai-viewer").nth(index)
        self.root.locator(".xai-readout:not(:empty)").wait_for()

    def settle(self):
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def canvas(self, pane=0):
        return self.root.locator(".xai-panes canvas, .xai-picture canvas").nth(pane)

    def pixels(self, columns, rows, pane=0):
        self.settle()
        script = """(canvas, [columns, rows]) => {
            const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            const out = [];
            for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) {
                const x = Math.floor((column + 0.5) * canvas.width / columns);
                const y = Math.floor((row + 0.5) * canvas.height / rows);
                out.push(...all.slice(4 * (y * canvas.width + x), 4 * (y * canvas.width + x) + 3));
            }
            return out;
        }"""
        colors = self.canvas(pane).evaluate(script, [columns, rows])
        return np.array(colors).reshape(rows, columns, 3)

    def control(self, name):
        return self.root.locator(f"[data-control={name}]")

    def move(self, name, value):
        self.control(name).fill(str(value))

    def text(self, part):
        return self.root.locator(f".xai-{part}").inner_text()


def expected_pixels(
    image, values, *, opacity, threshold, signed=False, bounds=(0, 1), peak=None, colors=None, top=False
):
    """Colours of one slice (row, column): the map's over the image's grey where it reaches the threshold."""
    grey = np.rint(255 * (image - bounds[0]) / (bounds[1] - bounds[0]))[..., None]
    scaled = values / (peak or np.abs(values).max())
    levels = np.rint(128 + 127 * scaled if signed else 255 * scaled).astype(int)
    scale = encode_colormap(colors or ("red-blue" if signed else "inferno"))
    colors = np.frombuffer(scale, np.uint8).reshape(256, 3)[levels]
    strength = np.abs((levels - 128) / 127 if signed else levels / 255)
    if top:
        kept = int(np.ceil(strength.size * threshold / 100))
        threshold = 100 * np.sort(strength, axis=None)[-kept]
    cover = np.where((strength > 0) & (100 * strength >= threshold), opacity, 0)[..., None]
    return grey + cover * (colors - grey)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def open_viewers(browser, tmp_path):
    """Write viewers into one page, open it from its file, and check at the end that it stayed quiet."""

    def open_(*viewers):
        path = tmp_path / "page.html"
        body = "\n".join(viewer.to_html() for viewer in viewers)
        path.write_text(f'<!doctype html><meta charset="utf-8"><body>{body}', encoding="utf-8")
        page = browser.open(path)
        return [Painted(page, index) for index in range(len(viewers))]

    yield open_
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith("file:")] == []
