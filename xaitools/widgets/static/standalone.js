// A model without a kernel: the same viewer in an exported page.

function standaloneModel(state) {
  const listeners = new Map();
  return {
    get: (name) => state[name],
    set(name, value) {
      state[name] = value;
      (listeners.get(`change:${name}`) ?? []).forEach((listener) => listener());
    },
    save_changes() {},
    on: (event, listener) => listeners.set(event, [...(listeners.get(event) ?? []), listener]),
    off: (event, listener) =>
      listeners.set(event, (listeners.get(event) ?? []).filter((other) => other !== listener)),
  };
}

function readBytes(key, value) {
  if (value === null || typeof value !== "object" || !("base64" in value)) return value;
  return new DataView(Uint8Array.from(atob(value.base64), (letter) => letter.charCodeAt(0)).buffer);
}

function mountStandalone(id) {
  const el = document.getElementById(id);
  const state = JSON.parse(el.querySelector("script").textContent, readBytes);
  el.querySelector("p")?.remove();
  return render({ model: standaloneModel(state), el });
}
