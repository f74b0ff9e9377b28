// A new job.
export {NewJob as default} from "./form.js";
