// The keys of a table of cells: it is one stop of the tab key, and the arrow keys move in it.
import {useRef, useState} from "./html.js";

const STEPS = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};

/** The direction of an arrow key as `[down, right]`; undefined for other keys, and for keys of the browser. */
export const stepOf = event => event.ctrlKey || event.metaKey || event.altKey ? undefined : STEPS[event.key];

/**
 * `{table, move, at}`: `table` is the ref of the table, and `move` listens to its keys. `at(row, column)` are the
 * properties of the link in a cell. Cells without a link are passed over.
 */
export function useCells(height, width) {
  const table = useRef();
  const [place, setPlace] = useState([0, 0]);
  const [row, column] = [Math.min(place[0], height - 1), Math.min(place[1], width - 1)];
  const go = (down, right) => {
    const target = table.current.querySelector(`[data-place="${down} ${right}"]`);
    if (!target) return false;
    setPlace([down, right]);
    target.focus();
    return true;
  };
  const move = event => {
    const step = stepOf(event);
    if (!step) return;
    event.preventDefault();
    let [down, right] = [row + step[0], column + step[1]];
    while (down >= 0 && right >= 0 && down < height && right < width && !go(down, right)) {
      down += step[0];
      right += step[1];
    }
  };
  const at = (down, right) => ({
    "data-place": `${down} ${right}`, tabindex: down === row && right === column ? 0 : -1,
    onFocus: () => setPlace([down, right]),
  });
  return {table, move, at};
}
