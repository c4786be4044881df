// The mouse wheel belongs to the page until one clicks into the picture, or holds a key: as on maps in web pages.

const WHEEL_NOTCH = 30;
const HINT_SHOWN = 4000; // ms

// Says whose the wheel is over the pictures in `area`, and tells the user once how to have it.
function guardWheel(area, what) {
  const hint = element("div", { className: "xai-hint", hidden: true });
  hint.setAttribute("role", "status");
  area.append(hint);
  let awake = false;
  let told = false;
  area.addEventListener("pointerdown", () => {
    awake = true;
    hint.hidden = true;
  });
  area.addEventListener("pointerleave", () => {
    awake = false;
  });

  function tell(canvas) {
    told = true;
    hint.textContent = `Click the picture, or hold Ctrl or ⌘, to move through the ${what} by the wheel`;
    hint.hidden = false;
    const { offsetLeft, offsetTop, offsetWidth, offsetHeight } = canvas;
    Object.assign(hint.style, { left: `${offsetLeft}px`, width: `${offsetWidth}px` });
    hint.style.top = `${offsetTop + (offsetHeight - hint.offsetHeight) / 2}px`;
    setTimeout(() => {
      hint.hidden = true;
    }, HINT_SHOWN);
  }

  return (event) => {
    const isOurs = awake || event.ctrlKey || event.metaKey;
    if (!isOurs && !told) tell(event.currentTarget);
    return isOurs;
  };
}

// Hands on one step a notch: 1 downwards, -1 upwards.
function followWheel(canvas, isOurs, step) {
  let travel = 0;
  const listen = (event) => {
    if (!isOurs(event)) return;
    event.preventDefault();
    travel += event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? WHEEL_NOTCH : 1);
    if (Math.abs(travel) < WHEEL_NOTCH) return;
    const down = travel > 0;
    travel = 0;
    step(down ? 1 : -1);
  };
  canvas.addEventListener("wheel", listen, { passive: false });
}
