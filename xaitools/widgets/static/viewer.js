// The viewer: controls beside the pictures, painted here from bytes that were sent once.

const STATE = [
  "image", "method", "view", "compare", "opacity", "threshold", "threshold_by", "sequential", "diverging",
  "outline", "crosshair", "plane", "side", "voxel",
];

// Three digits; what is very small or large in powers of ten, with `digits` after the point.
function number(value, digits = 1) {
  const size = Math.abs(value);
  const plain = size === 0 || (size >= 1e-3 && size < 1e5);
  return (plain ? String(Number(value.toPrecision(3))) : value.toExponential(digits)).replace("e+", "e");
}

function describeMap(map, image, index) {
  const share = isConstant(map, image) ? "" : ` (${Math.round(100 * relative(map, map.voxels[index]))} % of maximum)`;
  return `${map.name} ${number(valueAt(map, image, index), 2)}${share}`;
}

function describe(grid, store, image, slice, [column, row], maps) {
  const index = slice.index(column, row);
  const voxel = fromGrid(grid, slice.position(column, row));
  const mm = grid.affine ? toWorld(grid, voxel).map((at) => (Math.round(10 * at) / 10 + 0).toFixed(1)) : [];
  const world = grid.affine ? ` (x ${mm[0]}, y ${mm[1]}, z ${mm[2]} mm)` : "";
  const place = grid.rank === 2 ? `row ${voxel[0]}, column ${voxel[1]}` : `voxel ${voxel.join(", ")}${world}`;
  const region = store.labels?.voxels ? regionAt(store.labels, index) : "";
  const values = maps.filter((map) => map.voxels).map((map) => describeMap(map, image, index));
  const own = imageValues(store.image, image, index).map((value) => number(value, 2));
  const shown = own.length === 1 ? `image ${own[0]}` : `red ${own[0]}, green ${own[1]}, blue ${own[2]}`;
  return `${place}${region && `, ${region}`}: ${[shown, ...values].join(", ")}`;
}

function makeScale() {
  const bar = element("canvas", { width: 14, height: 160, className: "xai-bar" });
  const [highest, lowest] = [element("span"), element("span")];
  const node = element(
    "div", { className: "xai-scale" }, bar, element("div", {}, highest, element("span", {}, "relevance"), lowest),
  );
  return { node, bar, highest, lowest };
}

// One bar for absolute maps and one for signed ones; ends in the map's unit where there is one map only.
function paintScale(scale, maps, { state, colormaps }) {
  scale.node.hidden = maps.length === 0;
  if (maps.length === 0) return;
  const [map] = maps;
  const high = maps.length === 1 ? number(map.ranges[state.image][1]) : "each map’s maximum";
  paintBar(scale.bar, map, mapTable(map, state, colormaps));
  scale.highest.textContent = high;
  scale.lowest.textContent = map.signed ? `−${high}` : "0";
}

function buildPage() {
  const panes = element("div", { className: "xai-panes" });
  const readout = element("p", { className: "xai-readout" });
  readout.setAttribute("aria-live", "polite");
  const notice = element("p", { className: "xai-notice" });
  notice.setAttribute("role", "status");
  const controls = element("div", { className: "xai-controls" });
  const scales = [makeScale(), makeScale()];
  const picture = element("div", { className: "xai-picture" }, panes, readout);
  const bars = element("div", { className: "xai-scales" }, ...scales.map(({ node }) => node));
  const side = element("div", { className: "xai-side" }, controls, bars, notice);
  const root = element("div", { className: "xai-viewer" }, picture, side);
  root.dataset.lmSuppressShortcuts = "true"; // JupyterLab would take the arrow keys for its cells
  return { root, picture, panes, readout, notice, controls, scales };
}

function noticesFor(state, maps, notice, store) {
  const flat = maps.filter((map) => isConstant(map, state.image));
  return [
    notice,
    store.maps.size > 0 && maps.length === 0 ? "Choose a method to compare." : "",
    ...flat.map((map) => `The map ${map.name} is constant (${number(map.ranges[state.image][0])}): there is nothing to show.`),
    maps.every((map) => map.voxels) ? "" : "Unpacking …",
  ].filter((text) => text);
}

async function render({ model, el }) {
  const page = buildPage();
  page.root.dataset.token = model.get("token");
  el.append(page.root);
  const grid = model.get("grid");
  const names = model.get("names");
  const colormaps = model.get("colormaps");
  const store = groupLayers(model.get("layers"));
  const choices = { sequential: Object.keys(colormaps.sequential), diverging: Object.keys(colormaps.diverging) };
  const controls = makeControls(model, store, grid, choices);
  page.controls.append(...controls.map((control) => control.node), resetButton(model));
  const isOurs = guardWheel(page.picture, grid.rank === 3 ? "slices" : "images");
  const readState = () => Object.fromEntries(STATE.map((name) => [name, model.get(name)]));
  let panes = [];
  let pointed;

  function point(target) {
    pointed = target;
    showValue();
  }

  function showValue() {
    const { image, voxel } = readState();
    const pane = pointed?.pane ?? panes[0];
    const cell = pointed?.cell ?? pane?.slice.cell(toGrid(grid, voxel));
    const maps = mapsIn(panes);
    page.readout.textContent = pane ? describe(grid, store, image, pane.slice, cell, maps) : "";
  }

  function arrange(wanted) {
    const added = wanted.slice(panes.length).map(makePane);
    added.forEach((pane) => movePaneBy(pane, model, grid, point, isOurs));
    panes = [...panes, ...added].slice(0, wanted.length);
    panes.forEach((pane, index) => Object.assign(pane, wanted[index]));
    if (page.panes.childElementCount !== panes.length || added.length > 0) {
      page.panes.replaceChildren(...panes.map(({ node }) => node));
    }
    if (pointed && !panes.includes(pointed.pane)) pointed = undefined;
  }

  function draw() {
    const state = readState();
    arrange(panesOf(state, store));
    const maps = mapsIn(panes);
    maps.filter((map) => !map.voxels).forEach((map) => load(map).then(schedule));
    const scene = { grid, store, state, colormaps, names };
    page.panes.dataset.view = state.view;
    panes.forEach((pane) => {
      paintPane(pane, scene);
      labelPane(pane, scene);
    });
    const scaled = maps.filter((map) => map.voxels && !isConstant(map, state.image));
    page.scales.forEach((scale, signed) => paintScale(scale, scaled.filter((map) => map.signed === Boolean(signed)), scene));
    page.notice.textContent = noticesFor(state, maps, model.get("notice"), store).join("\n");
    controls.forEach((control) => control.sync());
    showValue();
  }

  // Draws at once, but at most once a frame; what changes meanwhile is drawn in the next one.
  let frame = 0;
  let stale = false;
  function schedule() {
    stale = Boolean(frame);
    if (stale) return;
    draw();
    frame = requestAnimationFrame(() => {
      frame = 0;
      if (stale) schedule();
    });
  }

  // What is shown first comes first; the other layers unpack while one already looks.
  async function loadFirst() {
    await Promise.all([store.image, ...mapsIn(panesOf(readState(), store))].map(load));
    draw();
  }

  async function loadRest() {
    for (const layer of allLayers(store)) await load(layer);
    page.root.dataset.unpacked = "all";
    schedule();
  }

  await loadFirst();
  STATE.forEach((name) => model.on(`change:${name}`, schedule));
  loadRest();
  return () => {
    cancelAnimationFrame(frame);
    STATE.forEach((name) => model.off(`change:${name}`, schedule));
  };
}
