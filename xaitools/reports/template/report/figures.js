// Figures take the width there is: of the window, of a telephone, of a sheet of paper.
const CONFIG = { displaylogo: false, showSendToCloud: false, plotlyServerURL: "" };
const PAPER = { width: 690, height: 770, curves: 480 }; // pixels inside the margins of A4 and Letter
const NARROW = 620; // below, legends and colour bars go under the figure
const CARTESIAN = /^(scatter(gl)?|bar|heatmap|image|contour|histogram.*|box|violin|waterfall|funnel|candlestick|ohlc)$/;

const textOf = (markup) => {
  const lines = (markup ?? "").replaceAll(/<br ?\/?>/g, "\n");
  return new DOMParser().parseFromString(lines, "text/html").body.textContent;
};
const titleOf = (part) => (typeof part === "string" ? part : part?.text);

class ReportFigure {
  constructor(place) {
    this.place = place;
    const { data, layout } = JSON.parse(place.querySelector("script").textContent);
    this.data = data;
    this.layout = layout;
    this.caption();
    this.draw();
    new ResizeObserver(() => this.width !== this.room() && !this.printed && this.draw()).observe(place.parentElement);
  }

  // Title and subtitle stand above the figure as text, which wraps, can be searched, and is not cut.
  caption() {
    const title = this.layout.title;
    const lines = [titleOf(title), titleOf(title?.subtitle)].map(textOf);
    const caption = document.createElement("figcaption");
    for (const [index, tag] of ["strong", "span"].entries()) {
      if (!lines[index]) continue;
      const part = document.createElement(tag);
      part.textContent = lines[index].replaceAll("\n", " ");
      caption.append(part, " ");
    }
    const whole = document.createElement("figure");
    this.place.replaceWith(whole);
    whole.append(caption, this.place);
    const rows = (text) => (text ? text.split("\n").length : 0);
    this.headroom = rows(lines[0]) ? 8 + 22 * rows(lines[0]) + 17 * rows(lines[1]) : 0;
    delete this.layout.title;
  }

  room() {
    return this.place.parentElement.clientWidth;
  }

  draw(paper) {
    const room = paper?.width ?? this.room();
    if (!room) return undefined;
    this.width = room;
    const [own, given] = [structuredClone(this.data), structuredClone(this.layout)];
    const { data, layout } = fitted(own, given, room, this.headroom, paper);
    this.place.style.height = `${layout.height}px`;
    this.place.style.width = `${layout.width}px`;
    return Plotly.newPlot(this.place, data, layout, CONFIG); // react() leaves parts of a colour bar that moved
  }
}

function fitted(data, layout, room, headroom, paper) {
  const fallback = layout.template?.layout?.margin ?? {};
  const margin = { l: 80, r: 80, t: 100, b: 80, ...fallback, ...layout.margin };
  const meant = layout.meta?.width ?? layout.width ?? Infinity;
  const width = Math.min(room, meant);
  const top = Math.max(margin.t - headroom, 24);
  let inner = (layout.height ?? 450) - margin.t - margin.b;
  const narrow = width < NARROW;
  const names = data.filter((trace) => trace.showlegend !== false && trace.name).map((trace) => textOf(trace.name));
  const legend = layout.showlegend ?? names.length > 1;
  const isBeside = legend && layout.legend?.orientation !== "h" && !narrow;
  const beside = isBeside ? 50 + 7 * Math.max(0, ...names.map((name) => name.length)) : 0;
  const grid = new Grid(data, layout);
  if (grid.isImage && Number.isFinite(meant)) {
    const sides = margin.l + margin.r;
    inner *= Math.max(0.3, (width - sides) / (meant - sides));
  } else if (paper) inner = Math.min(inner, paper.curves - top - margin.b);
  const isSmall = narrow || width < 0.75 * meant;
  const most = paper ? paper.height - top - margin.b - 60 : Infinity;
  const isRelaid = grid.reflow(width - beside - (narrow ? 52 : margin.l + margin.r), inner, isSmall, most);
  if (isRelaid) inner = grid.height;
  if (narrow || isRelaid) {
    if (narrow) Object.assign(margin, { l: Math.min(margin.l, 40), r: Math.min(margin.r, 12) });
    if (isRelaid && grid.isImage) margin.l = Math.max(margin.l, 40);
    inner += goUnder(data, layout, margin, legend ? names : [], width);
  }
  const height = Math.round(inner + top + margin.b);
  Object.assign(layout, { margin: { ...margin, t: top }, width, autosize: false });
  return { data, layout: { ...layout, height: paper ? Math.min(height, paper.height) : height } };
}

// Legend and colour bar of a narrow figure, above and under it; the height that the legend asks for.
function goUnder(data, layout, margin, names, width) {
  const under = { xref: "paper", yref: "container", yanchor: "bottom", y: 0 };
  const across = { orientation: "h", xanchor: "left", x: 0 };
  const bar = layout.coloraxis?.colorbar ?? data.find((trace) => trace.colorbar && trace.showscale !== false)?.colorbar;
  if (!bar) {
    layout.legend = { ...layout.legend, ...under, ...across, title: { text: "" } };
    const long = names.reduce((sum, name) => sum + 60 + 7 * name.length, 0);
    return 22 * Math.ceil((1.25 * long) / width);
  }
  const title = bar.title ? folded({ text: titleOf(bar.title) ?? "", font: { size: 13 } }, 0.5 * width) : {};
  const along = { orientation: "h", len: 0.85 * width, lenmode: "pixels", thickness: 12 };
  Object.assign(bar, under, along, { xref: "container", xanchor: "center", x: 0.5, title: { ...title, side: "top" } });
  margin.b = Math.max(margin.b, 74);
  layout.legend = { ...layout.legend, ...across, yref: "container", yanchor: "top", y: 1 };
  return 0;
}

// A title of an axis in lines that are no longer than the axis.
function folded(title, pixels) {
  const size = title.font?.size ?? 14;
  const most = Math.max(8, Math.floor(pixels / (0.55 * size)));
  const lines = [""];
  for (const word of title.text.replaceAll("<br>", " ").split(" ")) {
    if (lines.at(-1) && lines.at(-1).length + word.length >= most) lines.push("");
    lines.push(`${lines.pop()} ${word}`.trim());
  }
  const longest = Math.max(...lines.map((line) => line.length));
  const font = { ...title.font, size: Math.max(8, Math.min(size, pixels / (0.55 * longest))) };
  return { ...title, text: lines.join("<br>"), font };
}

// The panels of a figure by row and column; where they do not fit side by side, columns go on below.
class Grid {
  constructor(data, layout) {
    this.layout = layout;
    this.data = data;
    const flat = data.filter((trace) => CARTESIAN.test(trace.type ?? "scatter"));
    const keys = new Set(flat.map((trace) => `${trace.xaxis ?? "x"} ${trace.yaxis ?? "y"}`));
    const axis = (id) => layout[`${id[0]}axis${id.slice(1)}`] ?? {};
    this.cells = [...keys].map((key) => {
      const [x, y] = key.split(" ").map(axis);
      return { x, y, left: x.domain?.[0] ?? 0, right: x.domain?.[1] ?? 1, top: y.domain?.[1] ?? 1 };
    });
    const order = (all) => [...new Set(all.map((value) => value.toFixed(3)))].map(Number).sort((a, b) => a - b);
    this.columns = order(this.cells.map((cell) => cell.left));
    this.rows = order(this.cells.map((cell) => -cell.top));
    for (const cell of this.cells) {
      cell.column = this.columns.indexOf(Number(cell.left.toFixed(3)));
      cell.row = this.rows.indexOf(Number((-cell.top).toFixed(3)));
    }
    this.isImage = this.cells.some((cell) => cell.y.scaleanchor);
  }

  // Longest name on the axis `letter`, in characters; 0 where there are numbers.
  longest(letter) {
    const values = this.data.flatMap((trace) => (Array.isArray(trace[letter]) ? trace[letter] : []));
    return Math.max(0, ...values.map((value) => (typeof value === "string" ? value.length : 0)));
  }

  // Lay the columns into as many bands as `width` asks for; whether that was needed. Images of a small figure are
  // laid out anew in any case, since the room for what is written over them does not shrink with them.
  reflow(width, inner, isSmall, most) {
    const heads = (this.layout.annotations ?? []).some((note) => this.panelOf(note));
    const names = this.isImage ? 0 : Math.min(this.longest("y") * 6.5, 220);
    const least = this.isImage ? (heads ? 110 : 78) : names ? 110 : 210;
    const fit = Math.max(1, Math.floor((width - names) / least));
    const fits = fit >= this.columns.length;
    if (this.cells.length < 2 || (fits && !(isSmall && this.isImage))) return false;
    const bands = Math.ceil(this.columns.length / fit);
    const perBand = Math.ceil(this.columns.length / bands);
    const rows = this.rows.length;
    const isTitled = this.cells.some((cell) => cell.row > 0 && cell.x.side === "top" && cell.x.title?.text);
    const between = heads ? 52 : isTitled ? 28 : this.isImage ? 8 : 40;
    // For names and titles between two bands.
    const gap = this.isImage ? (heads ? 84 : 52) : 96 + Math.min(110, 5 * this.longest("x"));
    const side = (width - names) / perBand;
    const spaces = (bands - 1) * gap + bands * (rows - 1) * between;
    const wanted = this.isImage ? side * this.imageRatio() : Math.max(180, Math.min(300, inner / rows));
    const panel = Math.min(wanted, Math.max(40, (most - spaces) / (bands * rows)));
    const band = rows * panel + (rows - 1) * between;
    this.height = bands * band + (bands - 1) * gap;
    const insets = this.columns.map((_, column) => {
      const titles = this.cells.filter((cell) => cell.column === column && cell.y.title?.text);
      if (column % perBand === 0) return 0; // there is the margin
      if (!this.isImage) return 0.06;
      const lines = titles.map((cell) => folded(cell.y.title, panel).text.split("<br>").length);
      return titles.length ? (6 + 16 * Math.max(...lines)) / width : 0.015;
    });
    const moved = this.cells.map((cell) => {
      const start = cell.column - (cell.column % perBand);
      const sum = (until) => insets.slice(start, until).reduce((total, inset) => total + inset, 0);
      const share = (1 - sum(start + perBand)) / perBand;
      const left = sum(cell.column + 1) + share * (cell.column - start);
      const top = 1 - ((start / perBand) * (band + gap) + cell.row * (panel + between)) / this.height;
      const domains = { x: [left, Math.min(1, left + share)], y: [Math.max(0, top - panel / this.height), top] };
      return { cell, isFirst: cell.column === start, ...domains };
    });
    for (const note of this.layout.annotations ?? []) {
      const own = moved.find(({ cell }) => cell === this.panelOf(note));
      if (!own) continue;
      const middle = { x: (own.x[0] + own.x[1]) / 2, xanchor: "center" };
      Object.assign(note, names ? { x: own.x[1], xanchor: "right" } : middle, { y: own.y[1] });
    }
    const named = this.cells.filter((cell) => cell.y.title?.text);
    const below = this.cells.find((cell) => cell.x.title?.text)?.x.title;
    for (const { cell, x, y, isFirst } of moved) {
      const before = named.find((other) => other.row === cell.row && other.column < cell.column);
      const title = cell.y.title?.text ? cell.y.title : isFirst && before?.y.title;
      if (title) cell.y.title = folded(title, panel);
      if (isFirst && !this.isImage) cell.y.showticklabels = true;
      if (!this.isImage && below) cell.x.title = { ...below, ...cell.x.title };
      cell.x.domain = x;
      cell.y.domain = y;
    }
    return true;
  }

  // The panel above whose middle a note stands: that whose title it is.
  panelOf(note) {
    if (note.xref !== "paper" || note.yref !== "paper") return undefined;
    const away = (cell) => Math.abs((cell.left + cell.right) / 2 - note.x) + Math.abs(cell.top - note.y);
    return this.cells.find((cell) => away(cell) < 0.05);
  }

  // Height over width of the images shown.
  imageRatio() {
    const trace = this.data.find((own) => own.type === "heatmap");
    const shape = trace?.z?.shape?.split(",").map(Number) ?? [trace?.z?.length, trace?.z?.[0]?.length];
    return shape[0] && shape[1] ? shape[0] / shape[1] : 1;
  }
}

const figures = [...document.querySelectorAll("div.plot")].map((place) => new ReportFigure(place));
