// Prints what MDN's HTTP Observatory finds: node observatory.mjs HOST:HTTPS_PORT HTTP_PORT
import { scan } from "@mdn/mdn-http-observatory";
import { Session } from "@mdn/mdn-http-observatory/src/retriever/session.js";

const [host, httpPort] = process.argv.slice(2);

// The scanner knows one port for both schemes. Two servers of a test can't share one.
const fromUrl = Session.fromUrl;
Session.fromUrl = (url, options) => {
  if (url.protocol === "http:") {
    url.port = httpPort;
  }
  return fromUrl(url, options);
};

console.log(JSON.stringify(await scan(host)));
