// What a web page can try to read from a registry, and to push to it. It returns what the page got to see
// of each attempt: a status and a text, where the browser lets it see any.
//
// registry is the registry's origin, empty for the page's own. repository has a tag v1 and a blob. pushed
// is a blob that is not there, and formed is one that is the body of a form with the field FIELD. manifest
// is one that could be pushed.
async ({ registry, repository, blob, pushed, formed, field, manifest }) => {
  const api = `${registry}/v2/${repository}`;
  const seen = {};

  async function attempt(name, url, options) {
    try {
      const answer = await fetch(url, options);
      seen[name] = { status: answer.status, text: (await answer.text()) + [...answer.headers].join("\n") };
    } catch (refused) {
      seen[name] = { status: 0, text: "" };
    }
  }

  // ended waits until something is loaded that the page puts into itself, or is loaded anew.
  function ended(name, element) {
    return new Promise((resolve) => {
      const end = (how) => {
        seen[name] = { status: how === "load" && name.startsWith("element") ? 200 : 0, text: contentOf(element) };
        resolve();
      };
      element.onload = () => end("load");
      element.onerror = () => end("error");
      setTimeout(() => end("silence"), 20000);
      if (!element.isConnected) document.documentElement.append(element); // a frame that moves is loaded anew
    });
  }

  function contentOf(element) {
    try {
      return element.contentDocument?.documentElement?.textContent ?? "";
    } catch (refused) {
      return "";
    }
  }

  const places = {
    ping: `${registry}/v2/`,
    catalog: `${registry}/v2/_catalog`,
    tags: `${api}/tags/list`,
    manifest: `${api}/manifests/v1`,
    blob: `${api}/blobs/${blob}`,
  };
  for (const mode of ["cors", "no-cors"]) {
    for (const [name, url] of Object.entries(places)) {
      await attempt(`${mode} GET ${name}`, url, { mode, credentials: "include" });
      await attempt(`${mode} HEAD ${name}`, url, { mode, method: "HEAD", referrerPolicy: "no-referrer" });
    }
    await attempt(`${mode} POST upload`, `${api}/blobs/uploads/`, { mode, method: "POST" });
    await attempt(`${mode} POST blob`, `${api}/blobs/uploads/?digest=${pushed.digest}`, {
      mode, method: "POST", body: pushed.content, referrerPolicy: "no-referrer",
    });
  }
  await attempt("cors PUT manifest", `${api}/manifests/evil`, {
    method: "PUT", headers: { "Content-Type": "application/vnd.oci.image.manifest.v1+json" }, body: manifest,
  });
  await attempt("cors GET with a header", places.manifest, { headers: { Accept: "application/vnd.oci.image.index.v1+json" } });

  for (const kind of ["img", "script", "iframe"]) {
    const element = document.createElement(kind);
    element.src = kind === "iframe" ? places.tags : places.blob;
    await ended(kind === "iframe" ? "frame" : `element ${kind}`, element);
  }

  const frame = document.createElement("iframe");
  frame.name = "answer";
  await ended("empty frame", frame);
  const form = document.createElement("form");
  form.method = "POST";
  form.enctype = "text/plain";
  form.target = "answer";
  form.action = `${api}/blobs/uploads/?digest=${formed.digest}`;
  form.innerHTML = `<input name="${field.name}" value="${field.value}">`;
  document.documentElement.append(form);
  const answered = ended("form", frame);
  form.submit();
  await answered;
  return seen;
}
