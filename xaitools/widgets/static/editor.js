// The mask editor: polygon and brush on one slice. The browser holds the drawing and sends it on, gzipped.

const EDITOR_STATE = ["image", "method", "opacity", "threshold", "plane", "voxel", "tool", "erase", "brush"];
const EDITOR_SIDE = 512;
const UNDO_STEPS = 100;
const PAUSE = 150; // ms from a change in the middle of a stroke until Python hears of it

// Each row: what it does, and the keys of which any one does it.
const SHORTCUTS = [
  ["Polygon", ["P"]], ["Brush", ["B"]], ["Add or erase", ["E"]], ["Smaller brush", ["["]], ["Larger brush", ["]"]],
  ["Set a corner, or paint", ["Click", "Space"]], ["Close the polygon", ["Double click", "Enter"]],
  ["Take back a corner", ["Backspace"]], ["Cancel the polygon", ["Esc"]],
  ["Move the cursor", ["Arrows"]], ["Move it by 10", ["Shift+Arrows"]],
  ["Next slice or image", ["Page Up"]], ["Slice or image before", ["Page Down"]],
  ["Undo", ["Z", "Ctrl+Z"]], ["Redo", ["Y", "Ctrl+Y", "Ctrl+Shift+Z"]],
  ["Clear the slice", ["X"]], ["Copy to the next slice", ["C"]],
];

// Pixels whose centre lies inside by the even-odd rule. Corners are [column, row] from the upper left corner,
// in pixels: the centre of the first pixel is [0.5, 0.5].
function fillPolygon(corners, slice, mark) {
  for (let row = 0; row < slice.rows; row++) {
    const y = row + 0.5;
    const crossings = [];
    corners.forEach(([x0, y0], k) => {
      const [x1, y1] = corners[(k + 1) % corners.length];
      if (y0 <= y !== y1 <= y) crossings.push(x0 + ((y - y0) / (y1 - y0)) * (x1 - x0));
    });
    crossings.sort((a, b) => a - b);
    for (let k = 0; k + 1 < crossings.length; k += 2) {
      const first = Math.max(0, Math.ceil(crossings[k] - 0.5));
      for (let column = first; column < slice.columns && column + 0.5 <= crossings[k + 1]; column++) {
        mark(column, row);
      }
    }
  }
}

// Size of a pixel in units of its shorter side: the brush is round where voxels are not.
function pixelShape(slice) {
  const [width, height] = [slice.width / slice.columns, slice.height / slice.rows];
  const unit = Math.min(width, height);
  return [width / unit, height / unit];
}

// Pixels whose centre lies within half the brush's size of the way, and the one at its end.
function fillStroke([x0, y0], [x1, y1], size, slice, mark) {
  const [sx, sy] = pixelShape(slice);
  const [dx, dy] = [(x1 - x0) * sx, (y1 - y0) * sy];
  const length = dx * dx + dy * dy;
  for (let row = 0; row < slice.rows; row++) {
    const y = (row + 0.5 - y0) * sy;
    for (let column = 0; column < slice.columns; column++) {
      const x = (column + 0.5 - x0) * sx;
      const along = length ? Math.min(1, Math.max(0, (x * dx + y * dy) / length)) : 0;
      const touched = Math.hypot(x - along * dx, y - along * dy) <= size / 2;
      if (touched || (column === Math.floor(x1) && row === Math.floor(y1))) mark(column, row);
    }
  }
}

async function deflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"));
  return new DataView(await new Response(stream).arrayBuffer());
}

function sameBytes(one, other) {
  const [a, b] = [byteView(one), byteView(other)];
  return a.length === b.length && a.every((value, index) => value === b[index]);
}

// The drawing of all images, and the steps to undo and to redo, each a slice as it was.
function makeDrawing(voxels, imageSize) {
  let steps = [];
  let undone = [];
  const read = (slice) =>
    Uint8Array.from({ length: slice.rows * slice.columns }, (_, at) =>
      drawing.voxels[slice.index(at % slice.columns, Math.floor(at / slice.columns))]);
  const write = (slice, values) =>
    values.forEach((value, at) => {
      drawing.voxels[slice.index(at % slice.columns, Math.floor(at / slice.columns))] = value;
    });
  // Puts the last of `from` back, and what it replaces on top of `to`; gives the place of both.
  const swap = (from, to) => {
    const step = from.pop();
    if (!step) return undefined;
    to.push({ ...step, values: read(step.slice) });
    write(step.slice, step.values);
    return step.place;
  };
  const drawing = {
    voxels,
    read,
    write,
    replace(newVoxels) {
      drawing.voxels = newVoxels;
      steps = [];
      undone = [];
    },
    remember(slice, place) {
      steps = [...steps.slice(1 - UNDO_STEPS), { slice, place, values: read(slice) }];
      undone = [];
    },
    undo: () => swap(steps, undone),
    redo: () => swap(undone, steps),
    canUndo: () => steps.length > 0,
    canRedo: () => undone.length > 0,
    count(image) {
      let sum = 0;
      for (let at = image * imageSize; at < (image + 1) * imageSize; at++) sum += drawing.voxels[at];
      return sum;
    },
  };
  return drawing;
}

function paintFill(canvas, slice, voxels) {
  const pixels = new ImageData(slice.columns, slice.rows);
  for (let row = 0; row < slice.rows; row++) {
    for (let column = 0; column < slice.columns; column++) {
      const inside = voxels[slice.index(column, row)] > 0;
      pixels.data.set([0, 229, 255, inside ? 56 : 0], 4 * (row * slice.columns + column));
    }
  }
  paintPixels(canvas, pixels);
}

function paintCorners(canvas, slice, corners, pointer) {
  const [sx, sy] = [canvas.width / slice.columns, canvas.height / slice.rows];
  const context = canvas.getContext("2d");
  context.beginPath();
  [...corners, ...(pointer ? [pointer] : [])].forEach(([x, y]) => context.lineTo(x * sx, y * sy));
  context.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
  strokeTwice(context);
  context.setLineDash([]);
  for (const [x, y] of corners) {
    context.beginPath();
    context.arc(x * sx, y * sy, 3.5 * devicePixelRatio, 0, 2 * Math.PI);
    context.fillStyle = "#ffffff";
    context.fill();
    strokeTwice(context);
  }
}

function paintPointer(canvas, slice, [x, y], size) {
  const [sx, sy] = [canvas.width / slice.columns, canvas.height / slice.rows];
  const [px, py] = pixelShape(slice);
  const context = canvas.getContext("2d");
  context.beginPath();
  if (size) {
    context.ellipse(x * sx, y * sy, ((size / 2) * sx) / px, ((size / 2) * sy) / py, 0, 0, 2 * Math.PI);
  } else {
    const arm = 7 * devicePixelRatio;
    context.moveTo(x * sx - arm, y * sy);
    context.lineTo(x * sx + arm, y * sy);
    context.moveTo(x * sx, y * sy - arm);
    context.lineTo(x * sx, y * sy + arm);
  }
  strokeTwice(context);
}

function strokeTwice(context) {
  for (const [color, width] of [["rgba(0, 0, 0, 0.7)", 3], ["#ffffff", 1.25]]) {
    context.strokeStyle = color;
    context.lineWidth = width * devicePixelRatio;
    context.stroke();
  }
}

function fitEditorCanvas(canvas, slice) {
  const zoom = EDITOR_SIDE / Math.max(slice.width, slice.height);
  const cell = (zoom * slice.width) / slice.columns;
  const scale = (cell > 1 ? (zoom * Math.floor(cell)) / cell : zoom) * devicePixelRatio;
  canvas.width = Math.round(slice.width * scale);
  canvas.height = Math.round(slice.height * scale);
  canvas.style.width = `${canvas.width / devicePixelRatio}px`;
}

function makeButton(name, text, title, onclick) {
  const node = element("button", { type: "button", textContent: text, title, onclick });
  node.dataset.control = name;
  return node;
}

// Two buttons of which one is pressed.
function makeChoice(label, choices, get, set) {
  const buttons = choices.map(([value, name, text, title]) => ({
    value,
    node: makeButton(name, text, title, () => set(value)),
  }));
  const group = element("div", { className: "xai-choice" }, ...buttons.map(({ node }) => node));
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", label);
  const sync = () =>
    buttons.forEach(({ value, node }) => node.setAttribute("aria-pressed", String(value === get())));
  return { node: group, sync };
}

function makeScoreTable() {
  const caption = element("caption", { textContent: "Maps against the drawing of this image" });
  const columns = [
    ["Map", ""], ["AUC", "Area under the ROC curve"], ["Dice", "Largest Dice coefficient over all thresholds"],
  ];
  const heads = columns.map(([text, title]) => element("th", { textContent: text, title, scope: "col" }));
  const body = element("tbody");
  const note = element("p", { className: "xai-score-note" });
  const table = element("table", { className: "xai-scores" }, caption,
    element("thead", {}, element("tr", {}, ...heads)), body);
  const node = element("div", {}, table, note);
  node.setAttribute("role", "status");
  return {
    node,
    show(names, scores, shown, message) {
      const complete = names.every((name) => name in scores);
      note.textContent = message || (complete ? "" : "Python works them out as soon as it hears of the drawing.");
      body.replaceChildren(...names.map((name) => {
        const values = complete && !message ? scores[name] : undefined;
        const cells = ["auc", "dice"].map((key) => element("td", { textContent: values ? values[key].toFixed(3) : "–" }));
        const head = element("th", { textContent: name, scope: "row" });
        return element("tr", { className: name === shown ? "xai-shown" : "" }, head, ...cells);
      }));
    },
  };
}

function makeHelp() {
  const shown = (keys) => keys.flatMap((key, k) => [k ? " or " : "", element("kbd", { textContent: key })]);
  const rows = SHORTCUTS.map(([what, keys]) =>
    element("div", {}, element("dt", { textContent: what }), element("dd", {}, ...shown(keys))));
  return element("details", { className: "xai-help" },
    element("summary", { textContent: "Keys (after a click into the picture)" }), element("dl", {}, ...rows));
}

async function render({ model, el }) {
  const grid = model.get("grid");
  const names = model.get("names");
  const store = await decodeLayers(model.get("layers"));
  const methods = [...store.maps.keys()];
  const imageSize = grid.dims[0] * grid.dims[1] * grid.dims[2];
  const drawing = makeDrawing(await inflate(model.get("drawing")), imageSize);
  const stack = grid.rank === 3 ? "slice" : "image";

  const get = (name) => model.get(name);
  const set = (values) => saveState(model, values);
  const bind = (name, parse = (value) => value) => ({ get: () => get(name), set: (value) => set({ [name]: parse(value) }) });

  let corners = []; // of the polygon that is being drawn
  let pointer; // [column, row], of the mouse or the keyboard's cursor
  let stroke = false;
  let counted = drawing.count(get("image"));

  const sliceAt = ({ image, plane, voxel }) => cutSlice(grid, plane, toGrid(grid, voxel), image);
  const place = () => ({ image: get("image"), plane: get("plane"), voxel: [...get("voxel")] });
  const slice = () => sliceAt(place());

  // Slices of a volume from low to high along the normal; otherwise one image after another.
  function neighbour(step) {
    const at = place();
    if (grid.rank === 2) return names[at.image + step] === undefined ? undefined : { ...at, image: at.image + step };
    const normal = PLANES[at.plane][2];
    const position = toGrid(grid, at.voxel);
    position[normal] += step;
    const inside = position[normal] >= 0 && position[normal] < grid.dims[normal];
    return inside ? { ...at, voxel: fromGrid(grid, position) } : undefined;
  }

  let sent;
  let timer = 0;
  let sends = 0;
  async function send() {
    clearTimeout(timer);
    timer = 0;
    const number = ++sends;
    const data = await deflate(drawing.voxels);
    if (number !== sends) return; // overtaken by a later one
    sent = data;
    set({ drawing: data });
  }
  function changed(finished) {
    counted = drawing.count(get("image"));
    if (finished) send();
    else timer ||= setTimeout(send, PAUSE);
    schedule();
  }
  async function receive() {
    const data = get("drawing");
    if (sent && sameBytes(sent, data)) return;
    drawing.replace(await inflate(data));
    counted = drawing.count(get("image"));
    schedule();
  }

  function edit(change) {
    drawing.remember(slice(), place());
    change();
    changed(true);
  }
  function marker(current) {
    const value = get("erase") ? 0 : 1;
    return (column, row) => {
      drawing.voxels[current.index(column, row)] = value;
    };
  }
  function closePolygon() {
    const distinct = corners.filter(([x, y], k) => k === 0 || x !== corners[k - 1][0] || y !== corners[k - 1][1]);
    if (distinct.length < 3) return;
    const current = slice();
    edit(() => fillPolygon(distinct, current, marker(current)));
    corners = [];
    schedule();
  }
  function paint(from, to) {
    const current = slice();
    fillStroke(from, to, get("brush"), current, marker(current));
  }
  function goBack(where) {
    if (!where) return;
    set(where);
    changed(true);
  }
  const undo = () => goBack(drawing.undo());
  const redo = () => goBack(drawing.redo());
  function clear() {
    corners = [];
    const current = slice();
    edit(() => drawing.write(current, drawing.read(current).fill(0)));
  }
  function copyToNext() {
    const next = neighbour(1);
    if (!next) return;
    const values = drawing.read(slice());
    set(next);
    edit(() => drawing.write(slice(), values));
  }
  function go(step) {
    const next = neighbour(step);
    if (next) set(next);
  }
  function cancelPolygon() {
    corners = [];
    schedule();
  }

  const canvas = element("canvas", { tabIndex: 0 });
  canvas.setAttribute("role", "application");
  canvas.dataset.lmSuppressShortcuts = "true"; // JupyterLab's own single letters delete and copy cells
  const readout = element("p", { className: "xai-readout" });
  const controls = [];
  if (names.length > 1) {
    const options = names.map((name, index) => [String(index), name]);
    controls.push(selectControl("image", "Image", { options, ...bind("image", Number) }));
  }
  if (grid.rank === 3) {
    const normal = () => PLANES[get("plane")][2];
    controls.push(
      selectControl("plane", "Plane", { options: Object.keys(PLANES).map((plane) => [plane, plane]), ...bind("plane") }),
      rangeControl("slice", "Slice", {
        max: () => grid.dims[normal()] - 1,
        get: () => toGrid(grid, get("voxel"))[normal()],
        set: (value) => go(value - toGrid(grid, get("voxel"))[normal()]),
        format: (value) => `${value + 1} of ${grid.dims[normal()]}`,
      }),
    );
  }
  const tools = makeChoice("Tool", [
    ["polygon", "polygon", "Polygon", "Click the corners; double click or Enter closes (P)"],
    ["brush", "brush-tool", "Brush", "Paint with the pointer held down (B)"],
  ], () => get("tool"), (tool) => set({ tool }));
  const modes = makeChoice("Add or erase", [
    [false, "add", "Add", "The tools add to the drawing (E)"],
    [true, "erase", "Erase", "The tools take away from the drawing (E)"],
  ], () => get("erase"), (erase) => set({ erase }));
  controls.push(
    { node: element("div", { className: "xai-tools" }, tools.node, modes.node), sync: () => (tools.sync(), modes.sync()) },
    rangeControl("brush", "Brush size", { max: () => 50, ...bind("brush", (value) => Math.max(1, value)), format: (value) => `${value} px` }),
  );
  const buttons = {
    undo: makeButton("undo", "Undo", "Take back the last step (Z)", undo),
    redo: makeButton("redo", "Redo", "Do again what was taken back (Y)", redo),
    clear: makeButton("clear", grid.rank === 3 ? "Clear slice" : "Clear", "Erase all that is drawn here (X)", clear),
    copy: makeButton("copy", `Copy to next ${stack}`, `Draw the same on the next ${stack}, instead of what is there (C)`, copyToNext),
  };
  controls.push({
    node: element("div", { className: "xai-buttons" }, ...Object.values(buttons)),
    sync() {
      buttons.undo.disabled = !drawing.canUndo();
      buttons.redo.disabled = !drawing.canRedo();
      buttons.copy.disabled = !neighbour(1);
    },
  });
  if (methods.length) {
    const options = [["", "no map"], ...methods.map((name) => [name, name])];
    controls.push(
      selectControl("method", "Map", { options, ...bind("method") }),
      rangeControl("opacity", "Opacity", { max: () => 1, step: 0.05, ...bind("opacity"), format: (value) => `${Math.round(100 * value)} %` }),
      rangeControl("threshold", "Threshold", { max: () => 100, ...bind("threshold"), format: (value) => `${value} % of max` }),
    );
  }
  const table = makeScoreTable();
  const side = element("div", { className: "xai-side" },
    element("div", { className: "xai-controls" }, ...controls.map((control) => control.node)),
    ...(methods.length ? [table.node] : []), makeHelp());
  const picture = element("div", { className: "xai-picture" }, canvas, readout);
  const root = element("div", { className: "xai-viewer xai-editor" }, picture, side);
  root.dataset.token = model.get("token");
  el.append(root);

  function draw() {
    const current = slice();
    const image = get("image");
    const map = store.maps.get(get("method"));
    const colors = map && byteView(get("colormaps")[map.signed ? "diverging" : "sequential"]);
    const shown = map && !isConstant(map, image) ? map : null;
    const levels = shown && overlayTable(map, colors, get("opacity"), get("threshold"));
    fitEditorCanvas(canvas, current);
    paintPixels(canvas, composeSlice(current, store.image, shown, levels));
    if (!shown) paintFill(canvas, current, drawing.voxels); // over a map it would change the colours
    paintOutline(canvas, current, drawing);
    if (grid.letters) paintLetters(canvas, get("plane"));
    if (corners.length) paintCorners(canvas, current, corners, pointer);
    if (pointer) paintPointer(canvas, current, pointer, get("tool") === "brush" ? get("brush") : 0);
    describeDrawing(current, image);
    controls.forEach((control) => control.sync());
  }

  function describeDrawing(current, image) {
    const here = drawing.read(current).reduce((sum, value) => sum + value, 0);
    const parts = [`${here} of ${current.rows * current.columns} pixels drawn${grid.rank === 3 ? ` on this slice, ${counted} in the volume` : ""}.`];
    if (corners.length) parts.push(`Polygon of ${corners.length} corners: double click or Enter closes it, Esc cancels.`);
    readout.textContent = parts.join(" ");
    canvas.setAttribute("aria-label", `${names[image]}: ${get("erase") ? "erase" : "draw"} with the ${get("tool")}`);
    const message =
      counted === 0 ? "Nothing is drawn on this image yet: draw to see AUC and Dice."
      : counted === imageSize ? "All of the image is drawn: leave something outside to see AUC and Dice." : "";
    table.show(methods, get("scores"), get("method"), message);
  }

  let frame = 0;
  function schedule() {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      draw();
    });
  }

  function locate(event) {
    const box = canvas.getBoundingClientRect();
    const current = slice();
    return [
      ((event.clientX - box.left) / box.width) * current.columns,
      ((event.clientY - box.top) / box.height) * current.rows,
    ];
  }
  function press(at) {
    if (get("tool") === "polygon") corners.push(at);
    else edit(() => paint(at, at));
    schedule();
  }
  canvas.onpointerdown = (event) => {
    if (event.button !== 0) return;
    canvas.focus({ preventScroll: true });
    pointer = locate(event);
    if (get("tool") === "brush") {
      canvas.setPointerCapture(event.pointerId);
      stroke = true;
    }
    press(pointer);
    event.preventDefault();
  };
  canvas.onpointermove = (event) => {
    const from = pointer;
    pointer = locate(event);
    if (stroke) {
      paint(from, pointer);
      changed(false);
    }
    schedule();
  };
  canvas.onpointerup = canvas.onpointercancel = () => {
    if (stroke) send();
    stroke = false;
  };
  canvas.onpointerleave = () => {
    if (!stroke) pointer = undefined;
    schedule();
  };
  canvas.ondblclick = closePolygon;
  if (isStack(grid, names)) followWheel(canvas, guardWheel(picture, `${stack}s`), go);

  function moveCursor([columns, rows], far) {
    const { columns: width, rows: height } = slice();
    const [x, y] = pointer ?? [width / 2, height / 2];
    const inside = (value, size) => Math.min(size - 0.5, Math.max(0.5, Math.floor(value) + 0.5));
    const step = far ? 10 : 1;
    pointer = [inside(x + step * columns, width), inside(y + step * rows, height)];
    schedule();
  }
  const keys = {
    p: () => set({ tool: "polygon" }),
    b: () => set({ tool: "brush" }),
    e: () => set({ erase: !get("erase") }),
    "[": () => set({ brush: Math.max(1, get("brush") - 1) }),
    "]": () => set({ brush: Math.min(50, get("brush") + 1) }),
    z: (event) => (event.shiftKey ? redo() : undo()),
    y: redo,
    x: clear,
    c: copyToNext,
    Enter: closePolygon,
    Escape: cancelPolygon,
    Backspace: () => (corners.pop(), schedule()),
    PageUp: () => go(1),
    PageDown: () => go(-1),
    " ": () => pointer && press(pointer),
  };
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.onkeydown = (event) => {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const modified = event.ctrlKey || event.metaKey || event.altKey;
    if (modified && !["z", "y"].includes(key)) return;
    if (key in arrows) moveCursor(arrows[key], event.shiftKey);
    else if (key in keys) keys[key](event);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };

  function moved() {
    corners = [];
    counted = drawing.count(get("image"));
    schedule();
  }
  const reactions = [
    ...EDITOR_STATE.map((name) => [name, ["image", "plane", "voxel", "tool"].includes(name) ? moved : schedule]),
    ["scores", schedule],
    ["drawing", receive],
  ];
  reactions.forEach(([name, react]) => model.on(`change:${name}`, react));
  draw();
  return () => {
    cancelAnimationFrame(frame);
    if (timer) send();
    reactions.forEach(([name, react]) => model.off(`change:${name}`, react));
  };
}
