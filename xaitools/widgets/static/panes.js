// Panes: the pictures side by side, what each shows, and how hand and keyboard move through them.

const LONGEST_SIDE = { slice: 512, planes: 360, compare: 360 };

function makePane() {
  const canvas = element("canvas");
  const caption = element("figcaption");
  return { node: element("figure", {}, caption, canvas), caption, canvas };
}

function panesOf(state, store) {
  const planes = state.view === "planes" ? Object.keys(PLANES) : [state.plane];
  const methods = [...store.maps.keys()].filter((name) =>
    state.view === "compare" ? state.compare.includes(name) : name === state.method,
  );
  const maps = store.maps.size === 0 ? [undefined] : methods.map((method) => store.maps.get(method));
  return maps.flatMap((map) => planes.map((plane) => ({ plane, map })));
}

const mapsIn = (panes) => [...new Set(panes.map(({ map }) => map))].filter((map) => map);

// A whole number of screen pixels for each column of voxels, where there is room: all are equally wide.
// The three planes share one scale, other views fill their side.
function fitCanvas(canvas, slice, grid, view) {
  const shared = view === "planes";
  const extents = shared ? grid.dims.map((size, axis) => size * grid.spacing[axis]) : [slice.width, slice.height];
  const unit = shared ? Math.min(...grid.spacing) : slice.width / slice.columns;
  const zoom = (LONGEST_SIDE[view] / Math.max(...extents)) * devicePixelRatio;
  const scale = zoom * unit >= 2 ? Math.floor(zoom * unit) / unit : zoom;
  const [width, height] = [Math.round(slice.width * scale), Math.round(slice.height * scale)];
  if (canvas.width === width && canvas.height === height) return;
  Object.assign(canvas, { width, height });
  canvas.style.width = `${width / devicePixelRatio}px`;
}

function mapTable(map, state, colormaps) {
  const kind = map.signed ? "diverging" : "sequential";
  const colors = byteView(colormaps[kind][state[kind]]);
  const threshold =
    state.threshold_by === "top" ? topThreshold(map, state.image, state.threshold) : state.threshold;
  return overlayTable(map, colors, state.opacity, threshold);
}

function paintPane(pane, { grid, store, state, colormaps }) {
  const { canvas, map, plane } = pane;
  const position = toGrid(grid, state.voxel);
  const slice = cutSlice(grid, plane, position, state.image, state.side);
  pane.slice = slice;
  fitCanvas(canvas, slice, grid, state.view);
  const shown = map?.voxels && !isConstant(map, state.image) ? map : null;
  const table = shown && mapTable(map, state, colormaps);
  paintPixels(canvas, composeSlice(slice, store.image, shown, table));
  if (store.mask?.voxels && state.outline) paintOutline(canvas, slice, store.mask);
  if (state.crosshair || state.view === "planes") paintCrosshair(canvas, slice, slice.cell(position));
  if (grid.letters) paintLetters(canvas, plane, isMirrored(grid, plane, state.side));
  pane.caption.textContent = { slice: "", planes: plane, compare: map?.name }[state.view];
  pane.caption.title = state.view === "compare" ? (map?.about ?? "") : "";
}

function labelPane(pane, { grid, state, names }) {
  const axis = PLANES[pane.plane][2];
  const volume = grid.rank === 3;
  const [at, size] = volume ? [toGrid(grid, state.voxel)[axis], grid.dims[axis]] : [state.image, names.length];
  const place = volume ? `${pane.plane} slice ${at + 1} of ${size}` : names[state.image];
  const attributes = {
    role: size > 1 ? "slider" : "img",
    "aria-label": [names[state.image], pane.map?.name, volume && pane.plane].filter((part) => part).join(", "),
    ...(size > 1 && {
      "aria-valuemin": 1, "aria-valuemax": size, "aria-valuenow": at + 1, "aria-valuetext": place,
    }),
  };
  Object.entries(attributes).forEach(([name, value]) => pane.canvas.setAttribute(name, value));
  pane.canvas.tabIndex = 0;
}

function cellUnder(pane, event) {
  const box = pane.canvas.getBoundingClientRect();
  const column = Math.floor(((event.clientX - box.left) / box.width) * pane.slice.columns);
  const row = Math.floor(((event.clientY - box.top) / box.height) * pane.slice.rows);
  const isInside = column >= 0 && row >= 0 && column < pane.slice.columns && row < pane.slice.rows;
  return isInside ? [column, row] : undefined;
}

const KEYS = {
  ArrowUp: (at) => at + 1, ArrowRight: (at) => at + 1, PageUp: (at) => at + 10,
  ArrowDown: (at) => at - 1, ArrowLeft: (at) => at - 1, PageDown: (at) => at - 10,
  Home: () => 0, End: () => Infinity,
};

const SHIFTED = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };

// `point` hears of the cell under the pointer, or of none; `isOurs` says whether the wheel is the picture's.
function movePaneBy(pane, model, grid, point, isOurs) {
  const { canvas } = pane;
  const goTo = ([column, row]) => {
    saveState(model, { voxel: fromGrid(grid, pane.slice.position(column, row)) });
  };

  function step(change) {
    if (grid.rank === 3) return moveAlong(model, grid, PLANES[pane.plane][2], change);
    const last = model.get("names").length - 1;
    saveState(model, { image: Math.max(0, Math.min(last, change(model.get("image")))) });
  }

  function shift([right, down]) {
    const [column, row] = pane.slice.cell(toGrid(grid, model.get("voxel")));
    const clamp = (value, size) => Math.max(0, Math.min(size - 1, value));
    goTo([clamp(column + right, pane.slice.columns), clamp(row + down, pane.slice.rows)]);
  }

  canvas.onpointermove = (event) => {
    const cell = cellUnder(pane, event);
    point(cell && { pane, cell });
    if (cell && event.buttons & 1) goTo(cell);
  };
  canvas.onpointerdown = (event) => {
    const cell = cellUnder(pane, event);
    if (!cell || event.button !== 0 || event.pointerType === "touch") return; // a finger may want to scroll the page
    canvas.setPointerCapture(event.pointerId);
    goTo(cell);
  };
  canvas.onclick = (event) => {
    const cell = cellUnder(pane, event);
    if (cell) goTo(cell);
  };
  canvas.onpointerleave = () => point(undefined);
  if (isStack(grid, model.get("names"))) {
    followWheel(canvas, isOurs, (down) => step((at) => (grid.rank === 3 ? at - down : at + down)));
  }
  canvas.onkeydown = (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const [moves, move] = event.shiftKey ? [SHIFTED, shift] : [KEYS, step];
    if (!(event.key in moves)) return;
    event.preventDefault();
    move(moves[event.key]);
  };
}
