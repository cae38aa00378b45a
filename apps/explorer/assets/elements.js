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
  preview(link, row.src, [row.unit, row.label || row.name]);
  return link;
};
// Under the pointer, or when the keyboard reaches it, a link of a unit shows its image large, with its address and label.
const preview = (link, src, lines) => {
  if (!src) return;
  let card = null;
  const hide = () => {
    if (card) card.remove();
    card = null;
  };
  const show = () => {
    hide();
    card = element("span", "unit-preview");
    card.setAttribute("aria-hidden", "true");  // the link itself says the same
    const image = loadedImage(src, "", "large");
    card.append(image, ...lines.filter(Boolean).map((line) => element("span", "line", line)));
    link.append(card);
    const at = link.getBoundingClientRect(), side = 212;
    const left = at.right + 8 + side <= window.innerWidth ? at.right + 8 : Math.max(4, at.left - side - 8);
    card.style.left = left + "px";
    card.style.top = Math.max(4, Math.min(at.top, window.innerHeight - card.offsetHeight - 4)) + "px";
  };
  link.onpointerenter = (event) => { if (event.pointerType !== "touch") show(); };
  link.onfocus = () => { if (link.matches(":focus-visible")) show(); };
  link.onpointerleave = link.onpointerdown = link.onblur = link.onwheel = hide;
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
