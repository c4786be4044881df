// On paper nothing scrolls and nothing unfolds: figures and tables fit the sheet, and the parameters stand open, at
// the end.
let undo = [];
function toPaper() {
  if (undo.length) return;
  for (const figure of figures) {
    figure.printed = true;
    figure.draw(PAPER);
    undo.push(() => { figure.printed = false; figure.draw(); });
  }
  for (const block of document.querySelectorAll("details.parameters:not([open])")) {
    const place = document.createComment("parameters");
    block.replaceWith(place);
    document.querySelector("main").append(block);
    block.open = true;
    undo.push(() => { block.open = false; place.replaceWith(block); });
  }
  for (const table of document.querySelectorAll("main table")) {
    const width = table.style.width;
    table.style.width = "min-content";
    const least = table.offsetWidth;
    table.style.width = width;
    if (least <= PAPER.width) continue;
    table.style.zoom = PAPER.width / least;
    undo.push(() => { table.style.zoom = ""; });
  }
}
function toScreen() {
  for (const step of undo) step();
  undo = [];
}
addEventListener("beforeprint", toPaper);
addEventListener("afterprint", toScreen);
