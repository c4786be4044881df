// Voxels as they are sent: gzipped bytes on a right-anterior-superior grid, x fastest, image after image.

async function inflate(view) {
  const stream = new Blob([view]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Layers that hold differences of neighbours are summed up again, modulo 256.
async function unpack(layer) {
  const bytes = await inflate(layer.data);
  if (layer.differences) {
    for (let index = 1; index < bytes.length; index++) bytes[index] += bytes[index - 1];
  }
  layer.voxels = layer.wide ? new Uint16Array(bytes.buffer) : bytes;
}

// Unpacks a layer once, however often it is asked for.
const load = (layer) => (layer.ready ??= unpack(layer));

function groupLayers(layers) {
  const own = layers.map((layer) => ({ ...layer }));
  const find = (kind) => own.find((layer) => layer.kind === kind);
  return {
    image: find("image"),
    mask: find("mask"),
    labels: find("labels"),
    maps: new Map(own.filter((layer) => layer.kind === "map").map((layer) => [layer.name, layer])),
  };
}

const allLayers = (store) =>
  [store.image, ...store.maps.values(), store.mask, store.labels].filter((layer) => layer);

async function decodeLayers(layers) {
  const store = groupLayers(layers);
  await Promise.all(allLayers(store).map(load));
  return store;
}

// Axes of the grid that each plane shows: to the right of the screen, up, and through it.
const PLANES = { axial: [0, 1, 2], coronal: [0, 2, 1], sagittal: [1, 2, 0] };

// The `voxel` trait counts in the user's array, the grid in canonical order and in its own steps.
const toGrid = (grid, voxel) =>
  grid.axes.map((axis, k) => {
    const index = Math.floor(voxel[axis] / grid.step);
    return grid.flips[k] ? grid.dims[k] - 1 - index : index;
  });

function fromGrid(grid, position) {
  const voxel = [];
  grid.axes.forEach((axis, k) => {
    voxel[axis] = grid.step * (grid.flips[k] ? grid.dims[k] - 1 - position[k] : position[k]);
  });
  return voxel;
}

// Whether there is more than one slice or image to move through.
const isStack = (grid, names) => (grid.rank === 3 ? Math.max(...grid.dims) : names.length) > 1;

// Whether the screen's right is the patient's left: as if one looked from the feet, or into the face.
const isMirrored = (grid, plane, side) => side === "radiological" && grid.letters && PLANES[plane][0] === 0;

function cutSlice(grid, plane, position, image, side = "neurological") {
  const [right, up, normal] = PLANES[plane];
  const strides = [1, grid.dims[0], grid.dims[0] * grid.dims[1]];
  const columns = grid.dims[right];
  const rows = grid.dims[up];
  const base = image * strides[2] * grid.dims[2] + position[normal] * strides[normal];
  const mirrored = isMirrored(grid, plane, side);
  const across = (column) => (mirrored ? columns - 1 - column : column);
  return {
    columns,
    rows,
    width: columns * grid.spacing[right],
    height: rows * grid.spacing[up],
    index: (column, row) => base + across(column) * strides[right] + (rows - 1 - row) * strides[up],
    cell: (at) => [across(at[right]), rows - 1 - at[up]],
    position(column, row) {
      const at = [...position];
      at[right] = across(column);
      at[up] = rows - 1 - row;
      return at;
    },
  };
}

// Signed maps keep zero at level 128, absolute ones at 0; both are scaled by the map's largest magnitude.
const relative = (layer, level) => (layer.signed ? (level - 128) / 127 : level / 255);

// How far apart the voxels of two channels lie; 0 where there is one.
const channelStep = (image) => (image.channels === 3 ? image.voxels.length / 3 : 0);

// Values of an image's channels at a voxel: one, or red, green and blue.
function imageValues(layer, image, index) {
  const [low, high] = layer.ranges[image];
  const places = Array.from({ length: layer.channels }, (_, channel) => index + channel * channelStep(layer));
  return places.map((place) => low + (layer.voxels[place] / 255) * (high - low));
}

// Place of a voxel of the user's array in mm, where the affine is known.
const toWorld = (grid, voxel) =>
  grid.affine.slice(0, 3).map((row) => row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3]);

function valueAt(layer, image, index) {
  const [, high] = layer.ranges[image];
  return isConstant(layer, image) ? high : relative(layer, layer.voxels[index]) * high;
}

const isConstant = (layer, image) => layer.ranges[image][0] === layer.ranges[image][1];

// Smallest percentage of the maximum that the top `percent` of the image's voxels reach; ties count together.
function topThreshold(layer, image, percent) {
  const counts = strengthCounts(layer, image);
  let wanted = (percent / 100) * (layer.voxels.length / layer.ranges.length);
  let strength = counts.length;
  while (wanted > 0 && strength > 1) wanted -= counts[--strength];
  return 100 * (strength / (counts.length - 1));
}

// How many voxels have each magnitude, in levels.
function strengthCounts(layer, image) {
  layer.counts ??= [];
  return (layer.counts[image] ??= countStrengths(layer, image));
}

function countStrengths(layer, image) {
  const size = layer.voxels.length / layer.ranges.length;
  const counts = new Uint32Array(layer.signed ? 128 : 256);
  for (let index = image * size; index < (image + 1) * size; index++) {
    counts[Math.abs(layer.voxels[index] - (layer.signed ? 128 : 0))]++;
  }
  return counts;
}

// A label image that is shared by all images holds one image's voxels.
function regionAt(labels, index) {
  const place = labels.voxels[index % labels.voxels.length];
  const [value, name] = [labels.values[place], labels.names[place]];
  return name || (value ? `region ${value}` : "");
}
