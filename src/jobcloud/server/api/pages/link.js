// Moves the code of a link from the address to the form. The address with the code then leaves the history.
const code = decodeURIComponent(location.hash.slice(1));
if (code) {
  document.getElementById("code").value = code;
  history.replaceState(null, "", location.pathname);
  document.querySelector("button").focus();
}
