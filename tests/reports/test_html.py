import nbformat
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from papermill.translators import PythonTranslator

from xaitools.plots.style import titled
from xaitools.reports.html import contents, parameters_table, title, to_html
from xaitools.study import Run, plain_table, words

WIDGET = "application/vnd.jupyter.widget-view+json"
PLOTLY = "application/vnd.plotly.v1+json"
NAMES = [
    "<script>window.injected = 1</script>",
    "</script><script>window.injected = 1</script>",
    '"><img src=x onerror="window.injected = 1">',
    "$<img src=x onerror=window.injected=1>$",
    "$$\n<img src=x onerror=window.injected=1>\n$$",
    "$\\text{<img src=x onerror=window.injected=1>}$",
    "$\\href{javascript:window.injected=1}{x}$",
    "[x](javascript:window.injected=1) `</code><b>` &lt;b&gt; {{ 7 * 7 }}",
    '"; import os; os._exit(3) #\\',
    "line\n\n<b>heading</b>\r\nend",
]


def shown(**data):
    return new_output("display_data", data=data)


def plot(**layout):
    figure = go.Figure(go.Scatter(y=[1, 3, 2]), layout={"title": {"text": "</script><b>curve"}, **layout})
    return shown(**{PLOTLY: figure.to_plotly_json(), "text/plain": "Figure()"})


@pytest.fixture
def write(tmp_path):
    def write(*cells):
        nbformat.write(new_notebook(cells=list(cells)), tmp_path / "study.ipynb")
        return to_html(tmp_path / "study.ipynb", tmp_path / "study.html")

    return write


def test_plots_live_from_one_inlined_script_without_any_request(write, browser):
    path = write(
        new_markdown_cell("# Curves"),
        new_code_cell("figure.show()", outputs=[plot()]),
        new_code_cell("figure.show()", outputs=[plot(height=320)]),
    )
    assert path.read_text().count("plotly.js v") == 1
    page = browser.open(path)
    page.wait_for_selector(".plot .main-svg")
    assert page.locator(".plot.js-plotly-plot").count() == 2
    assert page.evaluate("document.querySelector('.plot').data[0].y") == [1, 3, 2]
    heights = [round(place.bounding_box()["height"]) for place in page.locator(".plot").all()]
    assert [heights[0] - heights[1], heights[1] < 320] == [130, True]  # the title stands above, as text
    assert page.locator("figcaption strong").all_inner_texts() == ["curve", "curve"]
    assert browser.requests == [path.as_uri()]
    assert browser.errors == []


def buttons(page):
    """What the buttons over a page's plots say."""
    page.wait_for_selector(".modebar-btn", state="attached")
    return page.locator(".modebar-btn").evaluate_all("all => all.map(button => button.dataset.title)")


def test_no_plot_of_a_page_offers_to_upload_what_it_shows(write, browser, tmp_path):
    figure = go.Figure(go.Scatter(y=[1, 3, 2]))
    figure.write_html(tmp_path / "plain.html")
    assert any("Share" in text for text in buttons(browser.open(tmp_path / "plain.html")))
    titled(figure, "In the template").write_html(tmp_path / "template.html")
    run = Run(tmp_path / "out", study="tiny", parameters={})
    pages = [
        write(new_code_cell("figure.show()", outputs=[plot()])),
        tmp_path / "template.html",
        run.save_figure(go.Figure(go.Scatter(y=[1, 3, 2])), "own"),
    ]
    for path in pages:
        texts = buttons(browser.open(path))
        assert "Download plot as a PNG" in texts, path
        assert not [text for text in texts if "Share" in text or "cloud" in text.lower()], path


def test_figures_that_a_notebook_shows_itself_offer_no_upload(tmp_path):
    Run(tmp_path, study="tiny", parameters={})
    bundle = pio.renderers["plotly_mimetype"].to_mimebundle(go.Figure().to_dict())
    assert bundle[PLOTLY]["config"]["showSendToCloud"] is False


def test_the_page_forbids_what_an_output_would_request(write, browser):
    image = '<img src="https://example.com/x.png">'
    script = '<script src="https://example.com/x.js"></script>'
    browser.open(write(new_code_cell("x", outputs=[shown(**{"text/html": image + script})])))
    assert [error for error in browser.errors if "Content Security Policy" not in error] == []
    assert len(browser.errors) == 2


def test_without_a_plot_there_is_no_plotly(write):
    assert write(new_markdown_cell("# Words")).stat().st_size < 50_000


def test_a_widget_shows_as_its_html_or_not_at_all(write, browser):
    path = write(
        new_code_cell(
            "viewer", outputs=[shown(**{WIDGET: {"model_id": "1"}, "text/html": "<p id='view'>slice</p>"})]
        ),
        new_code_cell(
            "slider", outputs=[shown(**{WIDGET: {"model_id": "2"}, "text/plain": "IntSlider(value=0)"})]
        ),
    )
    page = browser.open(path)
    assert page.locator("#view").inner_text() == "slice"
    assert "IntSlider" not in path.read_text()
    assert page.locator(".output").count() == 1


def test_a_script_in_an_output_runs_with_its_data_urls(write, browser):
    """What the slice viewer's standalone HTML needs: modules, data and blobs from inside the page."""
    module = """<script type="module">
        const bytes = await (await fetch("data:application/octet-stream;base64,AQID")).arrayBuffer();
        const blob = new Blob(["export default 7"], {type: "text/javascript"});
        const made = await import(URL.createObjectURL(blob));
        document.title = `${bytes.byteLength} ${made.default}`;
    </script>"""
    page = browser.open(write(new_code_cell("x", outputs=[shown(**{"text/html": module})])))
    page.wait_for_function("document.title === '3 7'")
    assert browser.errors == []


def test_code_is_folded_until_asked_for(write, browser):
    page = browser.open(write(new_code_cell("secret = 1"), new_code_cell("more = 2")))
    code = page.locator("details.code pre")
    assert not code.first.is_visible()
    page.click("#show-code")
    assert code.first.is_visible()
    assert code.last.is_visible()
    page.click("#show-code")
    assert not code.last.is_visible()


def test_messages_are_folded_and_text_errors_and_tables_show(write, browser):
    table = '<table class="dataframe"><tr><td>0.75</td></tr></table>'
    page = browser.open(
        write(
            new_code_cell(
                "x",
                outputs=[
                    new_output("stream", name="stdout", text="printed <b>\n"),
                    new_output("stream", name="stderr", text="chatter\n"),
                    new_output("execute_result", data={"text/html": table, "text/plain": "0.75"}),
                    new_output(
                        "error",
                        ename="ValueError",
                        evalue="bad",
                        traceback=["\x1b[31mValueError\x1b[0m: bad"],
                    ),
                ],
            )
        )
    )
    assert page.get_by_text("printed <b>").is_visible()
    assert not page.get_by_text("chatter").is_visible()
    assert page.get_by_text("0.75").count() == 1
    assert page.locator(".error").inner_text() == "ValueError: bad"


def test_a_progress_bar_is_one_message_in_its_last_state(write, browser):
    texts = [*(f"\rexplaining: {n}/3" for n in range(4)), "\n"]
    states = [new_output("stream", name="stderr", text=text) for text in texts]
    page = browser.open(write(new_code_cell("run()", outputs=states)))
    assert page.locator("details.messages").count() == 1
    assert page.locator("details.messages pre").text_content().strip() == "explaining: 3/3"


def test_formulas_are_drawn_by_the_browser_itself(write, browser):
    text = "The sum $\\sum_i r_i = f(x)$ of\n\n$$ r_i = \\frac{\\partial f}{\\partial x_i} < 1 $$\n\nfor 5 and 6."
    page = browser.open(write(new_markdown_cell(text), new_markdown_cell("It costs $\\frac{$ a day.")))
    assert page.locator("main math").count() == 2
    fraction = page.locator("main math[display=block] mfrac")
    numerator, denominator = (fraction.locator("> *").nth(i).bounding_box() for i in (0, 1))
    assert numerator["y"] + numerator["height"] <= denominator["y"] + 1
    shown = page.locator("main").inner_text()
    assert "<" in page.locator("main math[display=block]").text_content()
    assert "\\sum" not in shown
    assert "$\\frac{$" in shown
    assert browser.errors == []


def test_title_and_contents_come_from_the_headings(write, browser):
    cells = [
        new_markdown_cell("Words first\n\n# The *study*\n\n```\n## not one\n```"),
        new_markdown_cell("## Which map is `right`?\n\n### Detail\n\n## Why & how"),
    ]
    node = new_notebook(cells=cells)
    assert title(node) == "The study"
    assert [text for _, text in contents(node)] == ["Which map is right?", "Why & how"]
    page = browser.open(write(*cells))
    assert page.title() == "The study"
    for link in page.locator("nav a").all():
        page.locator(f"[id={link.get_attribute('href')[1:]!r}]").wait_for()


def test_the_table_shows_the_parameters_as_run(write, browser):
    declared = new_code_cell('seed: int = 0  # of every draw\nmethods: list = ["a"]\ndata_dir: str = ""')
    declared.metadata["tags"] = ["parameters"]
    injected = new_code_cell('# Parameters\nmethods = ["b", "c"]\ndata_dir = "/home/jane/ct"\n')
    injected.metadata["tags"] = ["injected-parameters"]
    assert parameters_table(new_notebook(cells=[declared, injected])) == [
        {"name": "seed", "value": "0", "help": "of every draw"},
        {"name": "methods", "value": "b, c", "help": ""},
        {"name": "data_dir", "value": "ct", "help": ""},
    ]
    page = browser.open(write(declared, injected))
    page.click("details.parameters summary")
    assert page.locator("details.parameters tr td.value").last.inner_text() == "{data_dir}"
    assert page.locator("details.parameters tr").all_inner_texts()[0].split("\t")[:2] == ["seed", "0"]


@pytest.mark.parametrize("source", ["seed: int = 0\nwidth = 2 * seed", "%load_ext x", "a = ("])
def test_a_parameters_cell_that_computes_gives_a_page_without_the_table(write, source):
    cell = new_code_cell(source)
    cell.metadata["tags"] = ["parameters"]
    assert parameters_table(new_notebook(cells=[cell])) == []
    assert write(cell).exists()


def named_everywhere(name):
    """Cells with a name as a class, a column, a message and a label of a plot."""
    said = (
        words.accuracy(name, 0.5, 0.5, 3, name)
        + words.listing([name])
        + words.failed({name: ValueError(name)})
    )
    return new_code_cell(
        "x",
        outputs=[
            shown(**{"text/markdown": said}),
            shown(**{"text/html": plain_table(pd.DataFrame({name: [name]})).to_html()}),
            new_output("stream", name="stderr", text=name),
            new_output("error", ename="DataError", evalue=name, traceback=[name]),
            plot(xaxis={"title": {"text": name}}),
        ],
    )


def test_no_name_becomes_markup_or_code(write, browser):
    declared = new_code_cell("names: list = []")
    declared.metadata["tags"] = ["parameters"]
    injected = new_code_cell(
        PythonTranslator.codify({"names": NAMES, "classes": {name: name for name in NAMES}})
    )
    injected.metadata["tags"] = ["injected-parameters"]
    found: dict[str, object] = {}
    exec(injected.source, found)
    assert (found["names"], found["classes"]) == (NAMES, {name: name for name in NAMES})
    path = write(declared, injected, *map(named_everywhere, NAMES))
    page = browser.open(path)
    page.wait_for_selector(".plot .main-svg")
    assert page.evaluate("window.injected") is None
    for markup in ("img", "a[href^=javascript]", "[onerror]", "b", "h1"):
        assert page.locator(f"main {markup}").count() == 0, markup
    assert browser.requests == [path.as_uri()]
    assert browser.errors == []
