// The viewer that a saved notebook keeps: it shows itself where the one with a kernel does not come.

const PATIENCE = 3000; // ms that the one with a kernel has to appear
const LOOK = 250; // ms between two looks
const WIDGET_SAYS = /^(Error (displaying|creating) widget|Loading widget)/;

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function mountUnlessLive(id, token, mount) {
  const el = document.getElementById(id);
  el.querySelector("p").hidden = true;
  const isLive = () =>
    [...document.querySelectorAll(`[data-token="${token}"]`)].some((node) => !node.closest(".xai-saved"));
  for (let waited = 0; waited < PATIENCE || !el.isConnected; waited += LOOK) {
    await pause(LOOK);
    if (isLive()) return;
  }
  // The outputs of the cell are siblings, each in a box of the front end's.
  const outputs = [...(el.closest(".jp-OutputArea, .output, .cell-outputs")?.children ?? [])];
  const errors = outputs.filter((node) => WIDGET_SAYS.test(node.textContent.trim()));
  errors.forEach((node) => (node.style.display = "none"));
  mount(el);
  while (el.isConnected && !isLive()) await pause(4 * LOOK);
  errors.forEach((node) => (node.style.display = ""));
  el.replaceChildren(); // a kernel knows the viewer again
}
