// Search, and order and filter of a wall. Texts are inserted as text, never as markup; nothing is fetched but search.js.
(function () {
  "use strict";
  var root = document.querySelector("header.site").dataset.root;
  var box = document.getElementById("search"), results = document.getElementById("results");
  var main = document.querySelector("main"), most = 120, loading = false;

  function words(text) { return text.toLowerCase().split(/\s+/).filter(Boolean); }
  function contains(text, query) {
    text = text.toLowerCase();
    return query.every(function (word) { return text.indexOf(word) >= 0; });
  }
  function thumb(layer, index) { // as on the sheets that are written beside the pages
    var side = layer.across, each = side * side, sheet = Math.floor(index / each), at = index % each;
    var left = Math.min(each, layer.units - sheet * each);
    var columns = Math.min(side, left), rows = Math.ceil(left / columns);
    var image = document.createElement("i");
    image.className = "thumb";
    image.style.backgroundImage = 'url("' + root + layer.path + "/sheet-" + sheet + '.webp")';
    image.style.backgroundSize = 100 * columns + "% " + 100 * rows + "%";
    image.style.backgroundPosition = 100 * (at % columns) / Math.max(columns - 1, 1) + "% " +
      100 * Math.floor(at / columns) / Math.max(rows - 1, 1) + "%";
    return image;
  }
  function line(text, css) {
    var element = document.createElement("span");
    element.textContent = text;
    element.className = css;
    return element;
  }
  function search() {
    var query = words(box.value);
    results.hidden = !query.length;
    main.hidden = !!query.length;
    if (!query.length || !window.siteUnits) return;
    results.replaceChildren();
    var count = 0;
    window.siteUnits.forEach(function (layer) {
      for (var i = 0; i < layer.units; i++) {
        var label = layer.labels[i] || "", kind = layer.classes[i] || "", address = layer.name + ":" + i;
        // a whole address is meant by its number; a part of one would match every unit of a layer
        var exact = query.length === 1 && query[0] === address.toLowerCase();
        if (!exact && !contains(label + " " + kind, query)) continue;
        count += 1;
        if (count > most) continue;
        var link = document.createElement("a");
        link.href = root + layer.path + "/" + i + ".html";
        link.append(thumb(layer, i), line(label, "label"), line(address, "address"), line(kind && "images: " + kind, "note"));
        results.append(link);
      }
    });
    var about = count === 1 ? "1 unit matches." : count + " units match" + (count > most ? "; the first " + most + " are shown." : ".");
    results.prepend(line(about, "note about"));
  }
  function load() {
    if (loading) return;
    loading = true;
    var script = document.createElement("script");
    script.src = root + "search.js";
    script.onload = search;
    document.head.append(script);
  }
  box.hidden = false;
  box.addEventListener("focus", load);
  box.addEventListener("input", function () { load(); search(); });
  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && document.activeElement === box) { box.value = ""; search(); box.blur(); }
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) return;
    if (event.key === "/") { box.focus(); event.preventDefault(); return; }
    var link = document.querySelector('[data-key="' + CSS.escape(event.key.toLowerCase()) + '"]');
    if (link) link.click();
  });

  var card = null;
  function hide() { if (card) card.remove(); card = null; }
  function preview(event) { // a unit's thumbnail, large, over a link to its page
    hide();
    var link = event.target.closest && event.target.closest("a"), image = link && link.querySelector("i.thumb");
    if (!image || event.pointerType === "touch" || event.type === "focusin" && !link.matches(":focus-visible")) return;
    var large = image.cloneNode(), style = getComputedStyle(image);
    large.removeAttribute("role");
    large.style.backgroundImage = style.backgroundImage;
    large.style.backgroundSize = style.backgroundSize;
    card = document.createElement("div");
    card.className = "preview";
    card.setAttribute("aria-hidden", "true"); // the link says the same
    card.append(large, line(link.title || link.textContent.trim(), ""));
    document.body.append(card);
    var at = link.getBoundingClientRect(), right = at.right + 8 + card.offsetWidth <= innerWidth;
    card.style.left = (right ? at.right + 8 : Math.max(4, at.left - card.offsetWidth - 8)) + "px";
    card.style.top = Math.max(4, Math.min(at.top, innerHeight - card.offsetHeight - 4)) + "px";
  }
  ["pointerover", "focusin"].forEach(function (name) { document.addEventListener(name, preview); });
  ["focusout", "click", "wheel"].forEach(function (name) { document.addEventListener(name, hide, { passive: true }); });
  document.documentElement.addEventListener("pointerleave", hide);

  var wall = document.getElementById("wall");
  if (!wall) return;
  var tiles = Array.from(wall.children), sort = document.getElementById("sort");
  var filter = document.getElementById("filter"), dead = document.getElementById("dead");
  function show() {
    var by = sort.value, query = words(filter.value), count = 0;
    function value(tile) { return tile.dataset[by] === undefined ? -Infinity : Number(tile.dataset[by]); }
    function text(tile) { return (tile.dataset.label || "\uffff").toLowerCase(); } // units without a label come last
    tiles.forEach(function (tile, i) { tile.number = i; });
    var ordered = tiles.slice().sort(function (a, b) {
      if (by === "number") return a.number - b.number;
      if (by === "label") return text(a) < text(b) ? -1 : text(a) > text(b) ? 1 : a.number - b.number;
      return value(b) - value(a) || a.number - b.number;
    });
    ordered.forEach(function (tile) {
      var hide = tile.classList.contains("dead-unit") && !(dead && dead.checked);
      hide = hide || !contains((tile.dataset.label || "") + " " + (tile.dataset.class || ""), query);
      tile.hidden = hide;
      count += hide ? 0 : 1;
    });
    wall.replaceChildren.apply(wall, ordered);
    document.getElementById("count").textContent = count + " of " + tiles.length + (tiles.length === 1 ? " unit" : " units");
    var state = new URLSearchParams();
    if (by !== "number") state.set("sort", by);
    if (filter.value) state.set("filter", filter.value);
    if (dead && dead.checked) state.set("dead", "1");
    history.replaceState(null, "", state.toString() ? "#" + state : location.pathname.split("/").pop());
  }
  function read() { // the order and filter are part of the address
    var state = new URLSearchParams(location.hash.slice(1)), by = state.get("sort");
    if (Array.from(sort.options).some(function (option) { return option.value === by; })) sort.value = by;
    filter.value = state.get("filter") || "";
    if (dead) dead.checked = state.get("dead") === "1";
    show();
  }
  document.getElementById("controls").hidden = false;
  [sort, filter, dead].forEach(function (input) { if (input) input.addEventListener("input", show); });
  addEventListener("hashchange", read);
  read();
})();
