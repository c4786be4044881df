"""From a slider to the painted slice: our viewer against those a user would pick, in a real JupyterLab.

One brain of 182 x 218 x 182 voxels (the MNI template with noise) under one smooth map, on loopback, in one browser:

- xaitools: `SliceViewer`;
- switching: the same with two maps, from one to the other;
- plotly: two heatmaps in a `FigureWidget` behind an ipywidgets slider, as plotly's documentation shows it;
- nilearn: `view_img`, moved by clicks;
- ipyniivue: the same volume and map as .nii.gz, moved by its own mouse wheel (its quickest way).

"painted" is the time from the event to the task that follows the frame that shows what was drawn: the one in whose
callbacks it was drawn, else the next (40 events, one after another); "two frames" waits for one more, as a bound from
above;
"frames" is in how many frames a drag of 60 events, one a frame, was drawn; "sent" is what the kernel sent to the
page until it stood still; "visible" is the time from running the cell to the first picture, libraries and data
loaded.

    python benchmarks/viewer.py [--viewers NAME ...]

--quick opens an exported viewer of a small volume in the browser alone, without Jupyter and the others.
"""

import shutil
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from _harness import Bench, Size

DATA = """
import tempfile
from pathlib import Path
import nibabel as nib
import numpy as np
from nilearn.datasets import load_mni152_template
from nilearn.image import smooth_img

template = load_mni152_template(resolution=1)
brain = np.asarray(template.dataobj, dtype=np.float32)[:182, :218, :182]
brain = np.pad(brain, [(0, size - found) for size, found in zip((182, 218, 182), brain.shape)])
rng = np.random.default_rng(0)
noise = nib.Nifti1Image(rng.normal(size=brain.shape).astype(np.float32), np.eye(4))
relevance = smooth_img(noise, 8).get_fdata(dtype=np.float32) * (brain > 0.1)
brain = np.where(brain > 0.1, brain + rng.normal(0, 0.02, brain.shape), 0).clip(0, 1).astype(np.float32)
image, overlay = (nib.Nifti1Image(values, template.affine) for values in (brain, np.abs(relevance)))
"""

IMPORTS = {
    "xaitools": "from xaitools.widgets import SliceViewer",
    "switching": "from xaitools.widgets import SliceViewer",
    "plotly": "import ipywidgets\nimport plotly.graph_objects as go",
    "nilearn": "from nilearn.plotting import view_img",
    "ipyniivue": "from ipyniivue import NiiVue",
}

SOURCES = {
    "xaitools": "SliceViewer(image, {'map': overlay})",
    "switching": "SliceViewer(image, {'first': overlay, 'second': image})",
    "plotly": """
over = overlay.get_fdata(dtype=np.float32)
figure = go.FigureWidget()
figure.add_heatmap(z=brain[:, :, 91].T, colorscale="gray", showscale=False)
figure.add_heatmap(z=over[:, :, 91].T, colorscale="Inferno", opacity=0.6)
slider = ipywidgets.IntSlider(60, 0, 181)
def show(change):
    with figure.batch_update():
        figure.data[0].z = brain[:, :, change["new"]].T
        figure.data[1].z = over[:, :, change["new"]].T
slider.observe(show, "value")
ipywidgets.VBox([slider, figure])
""",
    "nilearn": """
view_img(overlay, bg_img=image, threshold=0, resampling_interpolation="nearest")
""",
    "ipyniivue": """
folder = Path(tempfile.mkdtemp())
for name, volume in (("image", image), ("map", overlay)):
    nib.save(volume, folder / f"{name}.nii.gz")
viewer = NiiVue()
shown = {"path": folder / "map.nii.gz", "colormap": "inferno", "opacity": 0.6}
viewer.load_volumes([{"path": folder / "image.nii.gz"}, shown])
viewer
""",
}

# Each gives {act, hook}: move to the next slice, and call back when a picture has been drawn.
DRIVERS = {
    "xaitools": """() => {
        const input = document.querySelector(".xai-viewer [data-control=slice]");
        const canvas = document.querySelector(".xai-panes canvas");
        if (!input || !canvas?.hasAttribute("aria-valuenow")) return null;
        return {
            act() {
                input.value = (Number(input.value) + 1) % (Number(input.max) + 1);
                input.dispatchEvent(new Event("input"));
            },
            hook: (done) => new MutationObserver(done).observe(canvas, { attributeFilter: ["aria-valuenow"] }),
        };
    }""",
    "switching": """() => {
        const select = document.querySelector(".xai-viewer[data-unpacked] [data-control=method]");
        const canvas = document.querySelector(".xai-panes canvas");
        if (!select) return null;
        return {
            act() { select.selectedIndex = 1 - select.selectedIndex; select.dispatchEvent(new Event("change")); },
            hook: (done) => new MutationObserver(done).observe(canvas, { attributeFilter: ["aria-label"] }),
        };
    }""",
    "plotly": """() => {
        const plot = document.querySelector(".js-plotly-plot");
        const handle = document.querySelector(".noUi-handle");
        if (!handle || !plot?.querySelector(".heatmaplayer image")) return null;
        return {
            act: () => handle.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true })),
            hook: (done) => plot.on("plotly_afterplot", done),
        };
    }""",
    "nilearn": """() => {
        const frames = [...document.querySelectorAll("iframe")];
        const frame = frames.find((one) => one.contentDocument?.querySelector("canvas"));
        const canvas = frame?.contentDocument.querySelector("canvas");
        if (!canvas?.width) return null;
        const box = canvas.getBoundingClientRect();
        let at = 0;
        return {
            act() {
                at = (at + 1) % 60;
                const place = { clientX: box.left + box.width * (0.1 + at / 400), clientY: box.top + box.height / 2 };
                for (const type of ["mousedown", "mouseup", "click"]) {
                    canvas.dispatchEvent(new frame.contentWindow.MouseEvent(type, { bubbles: true, ...place }));
                }
            },
            hook(done) {
                const type = frame.contentWindow.CanvasRenderingContext2D.prototype;
                const original = type.drawImage;
                type.drawImage = function (...args) { original.apply(this, args); done(); };
            },
        };
    }""",
    "ipyniivue": """() => {
        const canvas = [...document.querySelectorAll("canvas")].find((one) => one.getContext("webgl2"));
        if (!canvas || !window.glDraws || performance.now() - window.glLast < 1000) return null;
        const box = canvas.getBoundingClientRect();
        const place = { clientX: box.left + box.width / 4, clientY: box.top + box.height / 4 };
        return {
            act() {
                const turn = { deltaY: -100, bubbles: true, cancelable: true, ...place };
                canvas.dispatchEvent(new WheelEvent("wheel", turn));
            },
            hook: (done) => { window.glHook = done; },
        };
    }""",
}

WATCH_GL = """
window.glDraws = 0;
for (const name of ["drawArrays", "drawElements"]) {
    const original = WebGL2RenderingContext.prototype[name];
    WebGL2RenderingContext.prototype[name] = function (...args) {
        original.apply(this, args);
        window.glDraws++;
        window.glLast = performance.now();
        window.glHook?.();
    };
}
"""

MEASURE = """async ([makeDriver, events]) => {
    const driver = eval(makeDriver)();
    const request = window.requestAnimationFrame.bind(window);
    const rendered = new MessageChannel();
    let rendering = false;
    rendered.port1.onmessage = () => { rendering = false; };
    window.requestAnimationFrame = (callback) => request((time) => {
        rendering = true;
        rendered.port2.postMessage(0);
        callback(time);
    });
    const frame = () => new Promise(request);
    const pause = (ms) => new Promise((done) => setTimeout(done, ms));
    let drawn;
    let frames = new Set();
    let now = 0;
    let isInFrame = false;
    driver.hook(() => { frames.add(now); isInFrame = rendering; drawn?.(); });
    const channel = new MessageChannel();
    const posted = () => new Promise((done) => { channel.port1.onmessage = done; channel.port2.postMessage(0); });
    const times = [];
    const bounds = [];
    for (let event = 0; event < events; event++) {
        const start = performance.now();
        const done = new Promise((resolve) => { drawn = resolve; });
        driver.act();
        const answered = await Promise.race([done.then(() => true), pause(3000)]);
        if (!answered) throw new Error("nothing was drawn");
        if (!isInFrame) await frame();
        await posted();
        times.push(performance.now() - start);
        await frame();
        bounds.push(performance.now() - start);
        await pause(30 + 20 * Math.random());
    }
    await pause(500);
    frames.clear();
    for (let event = 0; event < 1.5 * events; event++) {
        now = await frame();
        driver.act();
    }
    for (const end = performance.now() + 1500; performance.now() < end;) now = await frame();
    return { times, bounds, frames: frames.size };
}"""

RUN_CELL = """async (index) => {
    panel.content.activeCellIndex = index;
    await jupyterapp.commands.execute("notebook:run-cell");
}"""
OPEN = """async (path) => {
    await jupyterapp.restored;
    window.panel = await jupyterapp.commands.execute("docmanager:open", { path });
    await panel.context.ready;
    await panel.sessionContext.ready;
}"""


@contextmanager
def chromium():
    """A page of headless Chromium."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not path:
        sys.exit("no Chromium was found on the PATH: install one to measure the viewer")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.add_init_script(WATCH_GL)
        yield page
        browser.close()


def count_received(page):
    received = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda data: received.append(len(data))))
    return received


def measure(page, received, url, name, events):
    """Times in ms, frames painted of a drag, MB sent and seconds until visible."""
    page.goto(f"{url}lab?reset")
    page.wait_for_function("window.jupyterapp")
    page.evaluate(OPEN, f"{name}.ipynb")
    page.evaluate(RUN_CELL, 0)
    received.clear()
    start = time.perf_counter()
    run = page.evaluate_handle(f"() => {{ ({RUN_CELL})(1); }}")
    page.wait_for_function(DRIVERS[name], timeout=120_000, polling="raf")
    visible = time.perf_counter() - start - (1 if name == "ipyniivue" else 0)  # waits for a second of rest
    run.dispose()
    page.wait_for_timeout(1500)
    sent = sum(received)
    return page.evaluate(MEASURE, [DRIVERS[name], events]) | {"sent": sent / 1e6, "visible": visible}


def row(bench, name, found):
    times = sorted(found["times"])
    others = {
        "two_frames_ms": statistics.median(found["bounds"]),
        "p90_ms": times[int(0.9 * len(times))],
        "frames": f"{found['frames']} of {int(1.5 * bench.events)}",
        "sent_MB": found.get("sent"),
        "visible_s": found.get("visible"),
    }
    bench.figure(times, "ms", name=name, setting="182 x 218 x 182, one volume and one map", details=others)
    print(f"  {name}: median {statistics.median(times):.1f} ms, {others}")


def jupyter(bench):
    """All viewers in one JupyterLab and one browser."""
    from tests.widgets.jupyter import serve, write_notebook

    names = bench.options.viewers or [name for name in SOURCES if name != "ipyniivue" or bench.has(name)]
    with tempfile.TemporaryDirectory() as folder, chromium() as page:
        work = Path(folder) / "work"
        work.mkdir()
        for name in names:
            write_notebook(work / f"{name}.ipynb", DATA + IMPORTS[name], SOURCES[name])
        with serve("jupyterlab", Path(folder), work) as url:
            received = count_received(page)
            for name in names:
                row(bench, name, measure(page, received, url, name, bench.events))


def exported(bench):
    """Ours alone, from a file."""
    from xaitools.widgets import SliceViewer

    volume = np.random.default_rng(0).random((1, 1, 16, 20, 16), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder, chromium() as page:
        path = Path(folder) / "viewer.html"
        path.write_text(SliceViewer(volume, {"map": volume}).to_html(), encoding="utf-8")
        page.goto(path.as_uri())
        page.wait_for_function(DRIVERS["xaitools"], timeout=30_000, polling="raf")
        row(bench, "xaitools", page.evaluate(MEASURE, [DRIVERS["xaitools"], bench.events]))


if __name__ == "__main__":
    bench = Bench(
        __doc__,
        flags={
            "--viewers": {"nargs": "+", "choices": list(SOURCES), "help": "only these, in JupyterLab (all)"}
        },
        events=Size(40, quick=4, least=4, help="movements of the slider"),
    )
    if bench.has("playwright"):
        bench.run({"exported": exported} if bench.quick else {"jupyter": jupyter})
