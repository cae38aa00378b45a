const element = (tag, kind, text) => {
  const node = document.createElement(tag);
  node.className = kind;
  if (text !== undefined) node.textContent = text;
  return node;
};
// A plain click opens the unit in this session; with a modifier key the browser opens a new tab.
const unitLink = (row, kind, setTriggerValue) => {
  const link = element("a", kind);
  link.href = row.href;
  link.dataset.unit = row.unit;
  link.onclick = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    setTriggerValue("open", row.unit);
  };
  return link;
};
const loadedImage = (src, alt, kind) => {
  const image = element("img", kind);
  image.src = src;
  image.alt = alt;
  image.loading = "lazy";
  return image;
};
const unitImage = (src, name, kind = "") =>
  src ? loadedImage(src, "top activating image of " + name, "image " + kind) : element("span", "image none " + kind, name);
const group = (root, kind, label) => {
  root.className = kind;
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", label);
};
const signOf = (value) => value > 0 ? "plus" : value < 0 ? "minus" : "";
