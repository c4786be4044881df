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

function selectControl(name, text, { options, get, set }) {
  const input = element("select");
  options.forEach(([value, label]) => input.append(new Option(label, value)));
  input.onchange = () => set(input.value);
  return {
    node: labelled(name, text, input),
    sync() {
      input.value = get();
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

function checkControl(name, text, { get, set }) {
  const input = element("input", { type: "checkbox" });
  input.onchange = () => set(input.checked);
  return {
    node: labelled(name, text, input),
    sync() {
      input.checked = get();
    },
  };
}

function makeControls(model, store, grid) {
  const bind = (name, parse = (value) => value) => ({
    get: () => model.get(name),
    set(value) {
      model.set(name, parse(value));
      model.save_changes();
    },
  });
  const controls = [];
  const images = model.get("names");
  if (images.length > 1) {
    const options = images.map((name, index) => [String(index), name]);
    controls.push(selectControl("image", "Image", { options, ...bind("image", Number) }));
  }
  if (grid.rank === 3) {
    const options = Object.keys(PLANES).map((plane) => [plane, plane]);
    const normal = () => PLANES[model.get("plane")][2];
    const { set } = bind("voxel");
    controls.push(selectControl("plane", "Plane", { options, ...bind("plane") }));
    controls.push(
      rangeControl("slice", "Slice", {
        max: () => grid.dims[normal()] - 1,
        get: () => toGrid(grid, model.get("voxel"))[normal()],
        set(value) {
          const position = toGrid(grid, model.get("voxel"));
          position[normal()] = value;
          set(fromGrid(grid, position));
        },
        format: (value) => `${value + 1} of ${grid.dims[normal()]}`,
      }),
    );
  }
  const methods = [...store.maps.keys()].map((name) => [name, name]);
  controls.push(selectControl("method", "Method", { options: methods, ...bind("method") }));
  const percent = (value) => `${Math.round(100 * value)} %`;
  controls.push(
    rangeControl("opacity", "Opacity", { max: () => 1, step: 0.05, ...bind("opacity"), format: percent }),
    rangeControl("threshold", "Threshold", {
      max: () => 100, ...bind("threshold"), format: (value) => `${value} % of max`,
    }),
  );
  if (store.mask) controls.push(checkControl("outline", "Outline", bind("outline")));
  return controls;
}
