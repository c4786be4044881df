// Native HTML controls, so that a notebook and an exported page have the same ones.

function element(tag, attributes = {}, ...children) {
  const node = Object.assign(document.createElement(tag), attributes);
  node.append(...children);
  return node;
}

// A control is { node, sync }: `sync` brings it to the state, `set` is called when the user moves it.
function labelled(name, text, input, ...rest) {
  input.dataset.control = name;
  return element("label", {}, element("span", { className: "xai-label" }, text), input, ...rest);
}

// `about` explains the options in tooltips.
function selectControl(name, text, { options, get, set, about = () => "" }) {
  const input = element("select");
  options.forEach(([value, label]) => input.append(Object.assign(new Option(label, value), { title: about(value) })));
  input.onchange = () => set(input.value);
  return {
    node: labelled(name, text, input),
    sync() {
      input.value = get();
      input.title = about(get());
    },
  };
}

function rangeControl(name, text, { max, step = 1, get, set, format }) {
  const input = element("input", { type: "range", min: 0, step });
  const output = element("output");
  input.oninput = () => set(Number(input.value));
  return {
    node: labelled(name, text, input, output),
    sync() {
      input.max = max();
      input.value = get();
      output.textContent = format(get());
      input.setAttribute("aria-valuetext", output.textContent);
    },
  };
}

function checkControl(name, text, { get, set }, ...rest) {
  const input = element("input", { type: "checkbox" });
  input.onchange = () => set(input.checked);
  return {
    node: labelled(name, text, input, ...rest),
    sync() {
      input.checked = get();
    },
  };
}

function choicesControl(name, text, { options, get, set, about }) {
  const inputs = options.map((value) => element("input", { type: "checkbox", value }));
  const chosen = () => inputs.filter((input) => input.checked).map((input) => input.value);
  inputs.forEach((input) => {
    input.onchange = () => set(chosen());
  });
  const labels = inputs.map((input) => element("label", { title: about(input.value) }, input, element("span", {}, input.value)));
  const node = element("fieldset", {}, element("legend", {}, text), ...labels);
  node.dataset.control = name;
  return {
    node,
    sync() {
      inputs.forEach((input) => {
        input.checked = get().includes(input.value);
      });
    },
  };
}

// Shows a control only while it has something to say.
function onlyIf(isShown, control) {
  return {
    node: control.node,
    sync() {
      control.node.hidden = !isShown();
      control.sync();
    },
  };
}

function saveState(model, changes) {
  Object.entries(changes).forEach(([name, value]) => model.set(name, value));
  model.save_changes();
}

const copied = (value) => (Array.isArray(value) ? [...value] : value);

// Brings everything back to how the viewer was at first.
function resetButton(model) {
  const back = () =>
    saveState(model, Object.fromEntries(Object.entries(model.get("initial")).map(([name, value]) => [name, copied(value)])));
  const node = element("button", { type: "button", textContent: "Reset", title: "Back to how it was at first", onclick: back });
  node.dataset.control = "reset";
  return node;
}

const plain = (values) => values.map((value) => [value, value]);

const VIEWS = [["slice", "one slice"], ["planes", "three planes"], ["compare", "compare methods"]];

const SIDES = [["neurological", "neurological: left is left"], ["radiological", "radiological: left is right"]];

const THRESHOLDS = [["maximum", "above that % of maximum"], ["top", "top % of all pixels"]];

function viewsOf(store, grid) {
  const possible = { slice: true, planes: grid.rank === 3, compare: store.maps.size > 1 };
  return VIEWS.filter(([view]) => possible[view]);
}

function makeControls(model, store, grid, choices) {
  const bind = (name, parse = (value) => value) => ({
    get: () => model.get(name),
    set: (value) => saveState(model, { [name]: parse(value) }),
  });
  const methods = [...store.maps.keys()];
  const about = (name) => store.maps.get(name)?.about ?? "";
  const isView = (...views) => () => views.includes(model.get("view"));
  const shownNames = () => (model.get("view") === "compare" ? model.get("compare") : [model.get("method")]);
  const hasMap = (signed) => () => shownNames().some((name) => store.maps.get(name)?.signed === signed);
  const select = (name, text, options, parse) => selectControl(name, text, { options, ...bind(name, parse) });
  const names = model.get("names").map((name, index) => [String(index), name]);
  const views = viewsOf(store, grid);
  const volume = grid.rank === 3;
  return [
    names.length > 1 && select("image", "Image", names, Number),
    views.length > 1 && select("view", "View", views),
    volume && onlyIf(isView("slice", "compare"), select("plane", "Plane", plain(Object.keys(PLANES)))),
    volume && onlyIf(isView("slice", "compare"), sliceControl(model, grid)),
    grid.letters && select("side", "Side", SIDES),
    methods.length > 0 && onlyIf(isView("slice", "planes"), selectControl("method", "Method", {
      options: plain(methods), about, ...bind("method"),
    })),
    views.length > 1 && onlyIf(isView("compare"), choicesControl("compare", "Methods", { options: methods, about, ...bind("compare") })),
    ...(methods.length > 0 ? mapControls(bind, select) : []),
    onlyIf(hasMap(false), select("sequential", "Colours", plain(choices.sequential))),
    onlyIf(hasMap(true), select("diverging", "± Colours", plain(choices.diverging))),
    store.mask && checkControl("outline", "Outline", bind("outline"), outlineName(store.mask)),
    onlyIf(isView("slice", "compare"), checkControl("crosshair", "Crosshair", bind("crosshair"))),
  ].filter((control) => control);
}

function mapControls(bind, select) {
  const percent = (value) => `${Math.round(100 * value)} %`;
  return [
    rangeControl("opacity", "Opacity", { max: () => 1, step: 0.05, ...bind("opacity"), format: percent }),
    rangeControl("threshold", "Threshold", {
      max: () => 100, ...bind("threshold"), format: (value) => `${value} %`,
    }),
    select("threshold_by", "Show", THRESHOLDS),
  ];
}

function outlineName(mask) {
  const line = element("span", { className: "xai-line" });
  return element("span", { className: "xai-outline-name" }, line, mask.name);
}

function sliceControl(model, grid) {
  const normal = () => PLANES[model.get("plane")][2];
  return rangeControl("slice", "Slice", {
    max: () => grid.dims[normal()] - 1,
    get: () => toGrid(grid, model.get("voxel"))[normal()],
    set: (value) => moveAlong(model, grid, normal(), () => value),
    format: (value) => `${value + 1} of ${grid.dims[normal()]}`,
  });
}

// Moves the voxel along one axis of the grid, not beyond its ends.
function moveAlong(model, grid, axis, change) {
  const position = toGrid(grid, model.get("voxel"));
  position[axis] = Math.max(0, Math.min(grid.dims[axis] - 1, change(position[axis])));
  saveState(model, { voxel: fromGrid(grid, position) });
}
