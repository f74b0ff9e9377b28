// Filters in the address.
import {html, useEffect, useRef, useState} from "./html.js";
import {Field} from "./parts.js";
import {setQuery} from "./router.js";

const TYPING_MS = 150, LONGEST = 100;

/** A text in the address. It takes effect when the person stops typing, and changes the present entry of the history. */
export function TextFilter({label, name, value, placeholder, list, max = LONGEST}) {
  const [text, setText] = useState(value);
  const sent = useRef(value);
  useEffect(() => {
    if (value === sent.current) return;
    sent.current = value;  // the address changed by something else
    setText(value);
  }, [value]);
  useEffect(() => {
    if (text.trim() === sent.current) return undefined;
    const timer = setTimeout(() => {
      sent.current = text.trim();
      setQuery({[name]: sent.current}, {replace: true});
    }, TYPING_MS);
    return () => clearTimeout(timer);
  }, [text]);
  return html`<${Field} label=${label} value=${text} set=${setText} max=${max} placeholder=${placeholder}
    list=${list} />`;
}
