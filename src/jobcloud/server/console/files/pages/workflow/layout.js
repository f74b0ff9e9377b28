// Places the nodes of a graph in columns: each node stands to the right of all nodes that it starts after.
//
// An edge over several columns gets a bend in each column between. The nodes and bends of a column are sorted by the
// middle of their neighbours, so that few edges cross, and then moved to the height of their neighbours. The work is
// bounded: a fixed number of sweeps over at most 200 nodes, 1,000 edges and MOST_BENDS bends.

/** The size of a node in pixels. */
export const NODE = {width: 196, height: 48};
const BEND_HEIGHT = 10, GAP = 14;
const ORDER_SWEEPS = 8, HEIGHT_SWEEPS = 6;
// With more bends, the longest edges go straight from node to node.
const MOST_BENDS = 2_000;

/** Node → its column. Nodes of a cycle, which the server refuses, are in the first one. */
function columnsOf(names, edges) {
  const columns = new Map(names.map(name => [name, 0]));
  const open = new Map(names.map(name => [name, 0]));
  const behind = new Map(names.map(name => [name, []]));
  for (const {from, to} of edges) {
    open.set(to, open.get(to) + 1);
    behind.get(from).push(to);
  }
  const rest = names.filter(name => !open.get(name));
  while (rest.length) {
    const name = rest.pop();
    for (const other of behind.get(name)) {
      columns.set(other, Math.max(columns.get(other), columns.get(name) + 1));
      open.set(other, open.get(other) - 1);
      if (!open.get(other)) rest.push(other);
    }
  }
  for (const [name, count] of open) if (count) columns.set(name, 0);
  return columns;
}

const mean = (vertices, what) => vertices.reduce((sum, one) => sum + one[what], 0) / vertices.length;

/** Sort the columns, each by the middle of the neighbours on one side: to the right, then to the left. */
function sortColumns(columns) {
  for (let sweep = 0; sweep < ORDER_SWEEPS; sweep += 1) {
    const side = sweep % 2 ? "behind" : "before";
    for (const column of sweep % 2 ? columns.toReversed() : columns) {
      for (const one of column) one.wish = one[side].length ? mean(one[side], "row") : one.row;
      column.sort((one, other) => one.wish - other.wish || one.row - other.row);
      column.forEach((one, row) => {
        one.row = row;
      });
    }
  }
}

/** Move the vertices of a column as near to their wishes as their order and distances allow (least squares). */
function settle(column) {
  const blocks = [];
  let offset = 0;
  column.forEach((one, index) => {
    if (index) offset += (column[index - 1].height + one.height) / 2 + GAP;
    one.offset = offset;
    blocks.push({sum: one.wish - offset, count: 1});
    while (blocks.length > 1 && blocks.at(-1).sum / blocks.at(-1).count < blocks.at(-2).sum / blocks.at(-2).count) {
      const {sum, count} = blocks.pop();
      blocks.at(-1).sum += sum;
      blocks.at(-1).count += count;
    }
  });
  let place = 0;
  for (const {sum, count} of blocks) {
    for (const one of column.slice(place, place + count)) one.y = sum / count + one.offset;
    place += count;
  }
}

function setHeights(columns) {
  for (const column of columns) {
    for (const one of column) one.wish = 0;
    settle(column);
  }
  for (let sweep = 0; sweep < HEIGHT_SWEEPS; sweep += 1) {
    const side = sweep % 2 ? "behind" : "before";
    for (const column of sweep % 2 ? columns.toReversed() : columns) {
      for (const one of column) one.wish = one[side].length ? mean(one[side], "y") : one.y;
      settle(column);
    }
  }
}

/** The vertices of an edge in the columns between its ends. */
function bendsOf({from, to}, columns) {
  const bends = [];
  let last = from;
  for (let place = from.column + 1; place < to.column; place += 1) {
    const bend = {column: place, row: columns[place].length, height: BEND_HEIGHT, before: [last], behind: []};
    last.behind.push(bend);
    columns[place].push(bend);
    bends.push(bend);
    last = bend;
  }
  last.behind.push(to);
  to.before.push(last);
  return bends;
}

/**
 * The places of nodes `{name, after: [{node, …}]}`: `{nodes, edges, columns, width, height}`. `nodes` have `{node, x, y}`,
 * the left upper corner, and their column and row. `edges` have their condition, and `points`: pairs of the begin and
 * the end of each curve. `gap`: the distance of two columns in pixels.
 */
export function layout(given, gap) {
  const columnOf = new Map(given.map(node => [node.name, null]));
  const conditions = given.flatMap(node => node.after.filter(after => columnOf.has(after.node)).map(after =>
    ({after, from: after.node, to: node.name})));
  const found = columnsOf([...columnOf.keys()], conditions);
  const columns = Array.from({length: Math.max(0, ...found.values()) + 1}, () => []);
  const vertices = new Map(given.map(node => {
    const column = found.get(node.name);
    const vertex = {node, column, row: columns[column].length, height: NODE.height, before: [], behind: []};
    columns[column].push(vertex);
    return [node.name, vertex];
  }));
  const edges = conditions.map(({after, from, to}) => ({after, from: vertices.get(from), to: vertices.get(to)}))
    .filter(({from, to}) => from.column < to.column);
  let left = MOST_BENDS;
  for (const edge of edges.toSorted((one, other) =>
    one.to.column - one.from.column - (other.to.column - other.from.column))) {
    left -= edge.to.column - edge.from.column - 1;
    edge.bends = left >= 0 ? bendsOf(edge, columns) : [];
  }
  sortColumns(columns);
  setHeights(columns);
  const all = columns.flat();
  const top = Math.min(...all.map(one => one.y - one.height / 2));
  const leftOf = column => column * (NODE.width + gap);
  for (const one of all) {
    one.x = leftOf(one.column);
    one.y -= top;
  }
  return {
    nodes: [...vertices.values()].map(({node, x, y, column, row}) => ({node, x, y: y - NODE.height / 2, column, row})),
    edges: edges.map(({after, from, to, bends}) => ({
      after, from: from.node.name, to: to.node.name,
      points: [...bends, to].map((one, index) => {
        const last = index ? bends[index - 1] : from;
        return [[last.x + NODE.width, last.y], [one.x, one.y]];
      }),
    })),
    columns: columns.length,
    width: leftOf(columns.length) - gap,
    height: Math.max(...all.map(one => one.y + one.height / 2)),
  };
}
