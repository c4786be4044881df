// The viewer: controls beside one slice, painted here from bytes that were sent once.

const STATE = ["image", "method", "opacity", "threshold", "outline", "plane", "voxel"];
const LONGEST_SIDE = 512;

// A whole number of screen pixels for each column of voxels, where there is room: all are equally wide.
function fitCanvas(canvas, slice) {
  const zoom = LONGEST_SIDE / Math.max(slice.width, slice.height);
  const cell = (zoom * slice.width) / slice.columns;
  const scale = (cell > 1 ? (zoom * Math.floor(cell)) / cell : zoom) * devicePixelRatio;
  canvas.width = Math.round(slice.width * scale);
  canvas.height = Math.round(slice.height * scale);
  canvas.style.width = `${canvas.width / devicePixelRatio}px`;
}

const number = (value) => String(Number(value.toPrecision(3)));

function describe(grid, store, state, slice, column, row) {
  const index = slice.index(column, row);
  const map = store.maps.get(state.method);
  const voxel = fromGrid(grid, slice.position(column, row));
  const place = grid.rank === 2 ? `row ${voxel[0]}, column ${voxel[1]}` : `voxel ${voxel.join(", ")}`;
  const share = isConstant(map, state.image) ? "" : ` (${Math.round(100 * relative(map, map.voxels[index]))} % of maximum)`;
  const image = number(valueAt(store.image, state.image, index));
  return `${place}: image ${image}, ${state.method} ${number(valueAt(map, state.image, index))}${share}`;
}

function buildPage() {
  const canvas = element("canvas");
  canvas.setAttribute("role", "img");
  const bar = element("canvas", { width: 14, height: 160, className: "xai-bar" });
  const highest = element("span");
  const lowest = element("span");
  const readout = element("p", { className: "xai-readout" });
  const notice = element("p", { className: "xai-notice" });
  notice.setAttribute("role", "status");
  const controls = element("div", { className: "xai-controls" });
  const scale = element("div", { className: "xai-scale" }, bar, element("div", {}, highest, element("span", {}, "relevance"), lowest));
  const picture = element("div", { className: "xai-picture" }, canvas, readout);
  const side = element("div", { className: "xai-side" }, controls, scale, notice);
  const root = element("div", { className: "xai-viewer" }, picture, side);
  return { root, canvas, bar, highest, lowest, readout, notice, controls };
}

async function render({ model, el }) {
  const page = buildPage();
  el.append(page.root);
  const grid = model.get("grid");
  const store = await decodeLayers(model.get("layers"));
  const colormaps = model.get("colormaps");
  const controls = makeControls(model, store, grid);
  page.controls.append(...controls.map((control) => control.node));
  const readState = () => Object.fromEntries(STATE.map((name) => [name, model.get(name)]));
  let slice;
  let pointer;

  function showValue() {
    page.readout.textContent = pointer
      ? describe(grid, store, readState(), slice, ...pointer)
      : "Point at the picture to read its values.";
  }

  function draw() {
    const state = readState();
    const map = store.maps.get(state.method);
    const blank = isConstant(map, state.image);
    const colors = byteView(colormaps[map.signed ? "diverging" : "sequential"]);
    const table = overlayTable(map, colors, state.opacity, state.threshold);
    slice = cutSlice(grid, state.plane, toGrid(grid, state.voxel), state.image);
    fitCanvas(page.canvas, slice);
    paintPixels(page.canvas, composeSlice(slice, store.image, blank ? null : map, table));
    if (store.mask && state.outline) paintOutline(page.canvas, slice, store.mask);
    if (grid.letters) paintLetters(page.canvas, state.plane);
    paintBar(page.bar, map, table);
    const [low, high] = map.ranges[state.image];
    page.highest.textContent = number(high);
    page.lowest.textContent = number(map.signed ? -high : 0);
    page.notice.textContent = blank ? `This map is constant (${number(low)}): there is nothing to show.` : "";
    page.canvas.setAttribute("aria-label", `${model.get("names")[state.image]}, ${state.method}`);
    controls.forEach((control) => control.sync());
    showValue();
  }

  let frame = 0;
  function schedule() {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      draw();
    });
  }

  page.canvas.onpointermove = (event) => {
    const box = page.canvas.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * slice.columns);
    const row = Math.floor(((event.clientY - box.top) / box.height) * slice.rows);
    const inside = column >= 0 && row >= 0 && column < slice.columns && row < slice.rows;
    pointer = inside ? [column, row] : undefined;
    showValue();
  };
  page.canvas.onpointerleave = () => {
    pointer = undefined;
    showValue();
  };

  STATE.forEach((name) => model.on(`change:${name}`, schedule));
  draw();
  return () => {
    cancelAnimationFrame(frame);
    STATE.forEach((name) => model.off(`change:${name}`, schedule));
  };
}
