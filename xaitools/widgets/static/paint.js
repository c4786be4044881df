// Painting: a slice of the image, a map over it, the outline of the mask, letters, the colour bar.

const byteView = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

// One row a level: red, green, blue, and how much of it covers the image.
function overlayTable(layer, colors, opacity, threshold) {
  return Array.from({ length: 256 }, (_, level) => {
    const strength = Math.abs(relative(layer, level));
    const shown = strength > 0 && 100 * strength >= threshold;
    return [...colors.subarray(3 * level, 3 * level + 3), shown ? opacity : 0];
  });
}

function composeSlice(slice, image, map, table) {
  const pixels = new ImageData(slice.columns, slice.rows);
  const step = channelStep(image);
  let out = 0;
  for (let row = 0; row < slice.rows; row++) {
    for (let column = 0; column < slice.columns; column++) {
      const index = slice.index(column, row);
      const [red, green, blue, cover] = map ? table[map.voxels[index]] : [0, 0, 0, 0];
      const own = [image.voxels[index], image.voxels[index + step], image.voxels[index + 2 * step]];
      pixels.data[out++] = own[0] + cover * (red - own[0]);
      pixels.data[out++] = own[1] + cover * (green - own[1]);
      pixels.data[out++] = own[2] + cover * (blue - own[2]);
      pixels.data[out++] = 255;
    }
  }
  return pixels;
}

function paintPixels(canvas, pixels) {
  const buffer = new OffscreenCanvas(pixels.width, pixels.height);
  buffer.getContext("2d").putImageData(pixels, 0, 0);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(buffer, 0, 0, canvas.width, canvas.height);
}

// Along the edges of the pixels, so that the line says exactly what the mask holds.
function paintOutline(canvas, slice, mask) {
  const inside = (column, row) =>
    column >= 0 && row >= 0 && column < slice.columns && row < slice.rows &&
    mask.voxels[slice.index(column, row)] > 0;
  const sx = canvas.width / slice.columns;
  const sy = canvas.height / slice.rows;
  const path = new Path2D();
  const edge = (x0, y0, x1, y1) => {
    path.moveTo(x0 * sx, y0 * sy);
    path.lineTo(x1 * sx, y1 * sy);
  };
  for (let row = 0; row <= slice.rows; row++) {
    for (let column = 0; column <= slice.columns; column++) {
      const here = inside(column, row);
      if (here !== inside(column - 1, row)) edge(column, row, column, row + 1);
      if (here !== inside(column, row - 1)) edge(column, row, column + 1, row);
    }
  }
  const context = canvas.getContext("2d");
  context.lineCap = "round";
  for (const [color, width] of [["rgba(0, 0, 0, 0.6)", 3], ["#00e5ff", 1.5]]) {
    context.strokeStyle = color;
    context.lineWidth = width * devicePixelRatio;
    context.stroke(path);
  }
}

const LETTERS = [["L", "R"], ["P", "A"], ["I", "S"]];

function paintLetters(canvas, plane, mirrored = false) {
  const [right, up] = PLANES[plane];
  const { width, height } = canvas;
  const size = 14 * devicePixelRatio;
  const context = canvas.getContext("2d");
  context.font = `bold ${size}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineWidth = 3 * devicePixelRatio;
  context.strokeStyle = "black";
  context.fillStyle = "white";
  const [left, rightmost] = mirrored ? [1, 0] : [0, 1];
  const places = [
    [LETTERS[right][left], size, height / 2], [LETTERS[right][rightmost], width - size, height / 2],
    [LETTERS[up][0], width / 2, height - size], [LETTERS[up][1], width / 2, size],
  ];
  for (const [letter, x, y] of places) {
    context.strokeText(letter, x, y);
    context.fillText(letter, x, y);
  }
}

// Lines that stop short of the voxel they point at, so that it stays visible.
function paintCrosshair(canvas, slice, [column, row]) {
  const context = canvas.getContext("2d");
  const [sx, sy] = [canvas.width / slice.columns, canvas.height / slice.rows];
  const [x, y] = [Math.floor((column + 0.5) * sx) + 0.5, Math.floor((row + 0.5) * sy) + 0.5];
  const [across, along] = [sx, sy].map((size) => Math.max(size, 6 * devicePixelRatio));
  const path = new Path2D();
  for (const [x0, y0, x1, y1] of [
    [0, y, x - across, y], [x + across, y, canvas.width, y],
    [x, 0, x, y - along], [x, y + along, x, canvas.height],
  ]) {
    path.moveTo(x0, y0);
    path.lineTo(x1, y1);
  }
  context.lineCap = "butt";
  context.strokeStyle = "#f0e442";
  context.lineWidth = devicePixelRatio;
  context.stroke(path);
}

function paintBar(canvas, layer, table) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  const lowest = layer.signed ? 1 : 0;
  for (let y = 0; y < canvas.height; y++) {
    const level = Math.round(255 - (y / (canvas.height - 1)) * (255 - lowest));
    const [red, green, blue, cover] = table[level];
    context.fillStyle = cover > 0 ? `rgb(${red}, ${green}, ${blue})` : "rgba(128, 128, 128, 0.25)";
    context.fillRect(0, y, canvas.width, 1);
  }
}
