// Voxels as they are sent: gzipped bytes on a right-anterior-superior grid, x fastest, image after image.

async function inflate(view) {
  const stream = new Blob([view]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function decodeLayers(layers) {
  const decoded = await Promise.all(
    layers.map(async (layer) => ({ ...layer, voxels: await inflate(layer.data) })),
  );
  return {
    image: decoded.find((layer) => layer.kind === "image"),
    mask: decoded.find((layer) => layer.kind === "mask"),
    maps: new Map(decoded.filter((layer) => layer.kind === "map").map((layer) => [layer.name, layer])),
  };
}

// Axes of the grid that each plane shows: to the right of the screen, up, and through it.
const PLANES = { axial: [0, 1, 2], coronal: [0, 2, 1], sagittal: [1, 2, 0] };

// The `voxel` trait counts in the user's array, the grid in canonical order.
const toGrid = (grid, voxel) =>
  grid.axes.map((axis, k) => (grid.flips[k] ? grid.dims[k] - 1 - voxel[axis] : voxel[axis]));

function fromGrid(grid, position) {
  const voxel = [];
  grid.axes.forEach((axis, k) => {
    voxel[axis] = grid.flips[k] ? grid.dims[k] - 1 - position[k] : position[k];
  });
  return voxel;
}

function cutSlice(grid, plane, position, image) {
  const [right, up, normal] = PLANES[plane];
  const strides = [1, grid.dims[0], grid.dims[0] * grid.dims[1]];
  const columns = grid.dims[right];
  const rows = grid.dims[up];
  const base = image * strides[2] * grid.dims[2] + position[normal] * strides[normal];
  return {
    columns,
    rows,
    width: columns * grid.spacing[right],
    height: rows * grid.spacing[up],
    index: (column, row) => base + column * strides[right] + (rows - 1 - row) * strides[up],
    position(column, row) {
      const at = [...position];
      at[right] = column;
      at[up] = rows - 1 - row;
      return at;
    },
  };
}

// Signed maps keep zero at level 128, absolute ones at 0; both are scaled by the map's largest magnitude.
const relative = (layer, level) => (layer.signed ? (level - 128) / 127 : level / 255);

function valueAt(layer, image, index) {
  const [low, high] = layer.ranges[image];
  if (layer.kind === "image") return low + (layer.voxels[index] / 255) * (high - low);
  return low === high ? high : relative(layer, layer.voxels[index]) * high;
}

const isConstant = (layer, image) => layer.ranges[image][0] === layer.ranges[image][1];
