// Preact with htm: components in plain modules, without a build. Preact inserts all texts as text, never as HTML.
import htm from "../vendor/htm.js";
import {createContext, Fragment, h, render} from "../vendor/preact.js";

export {createContext, Fragment, render};
export {
  useCallback, useContext, useEffect, useErrorBoundary, useId, useLayoutEffect, useMemo, useRef, useState,
} from "../vendor/hooks.js";

export const html = htm.bind(h);
