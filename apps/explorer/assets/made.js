const made = (tag, kind, text) => {
  const node = document.createElement(tag);
  node.className = kind;
  if (text !== undefined) node.textContent = text;
  return node;
};
