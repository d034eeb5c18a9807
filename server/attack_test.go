package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/server"
)

// Requests that two readers could read differently are read in one way, or not at all. The line and fields of each
// are as they are sent; HOST is the server's own.
func TestRequestsThatCanBeReadInTwoWays(t *testing.T) {
	f := serve(t, nil)
	f.image("app/hello", "v1", ociImage)
	addr := f.listen()
	_, port, _ := strings.Cut(addr, ":")
	for request, want := range map[string]int{
		"GET /v2/ HTTP/1.1\r\nHost: HOST\r\nHost: HOST":      400,
		"GET /v2/ HTTP/1.1\r\nHost: HOST\r\nHost: evil.test": 400,
		"GET /v2/ HTTP/1.1": 400,
		"GET http://evil.test/v2/ HTTP/1.1\r\nHost: HOST":                                                    403,
		"GET http://HOST/v2/ HTTP/1.1\r\nHost: HOST":                                                         200,
		"GET http://user:word@HOST/v2/ HTTP/1.1\r\nHost: evil.test":                                          200, // it is sent to us, by our name
		"GET /v2/ HTTP/1.1\r\nHost: evil.test@HOST":                                                          400,
		"GET /v2/ HTTP/1.1\r\nHost: HOST@evil.test":                                                          400,
		"GET /v2/ HTTP/1.1\r\nHost: localhost.evil.test:PORT":                                                403,
		"GET /v2/ HTTP/1.1\r\nHost: LocalHost.:PORT":                                                         200,
		"GET /v2/ HTTP/1.1\r\nHost: [0:0:0:0:0:0:0:1]:PORT":                                                  200,
		"GET /v2/ HTTP/1.1\r\nHost: [::ffff:127.0.0.1]:PORT":                                                 200,
		"GET /v2/ HTTP/1.1\r\nHost: [::]:PORT":                                                               403,
		"GET /v2/ HTTP/1.1\r\nHost: 0.0.0.0:PORT":                                                            403,
		"GET /v2/ HTTP/1.1\r\nHost: 127.1:PORT":                                                              403,
		"GET /v2/ HTTP/1.1\r\nHost: 2130706433:PORT":                                                         403,
		"GET /v2/ HTTP/1.1\r\nHost: 0x7f000001:PORT":                                                         403,
		"GET /v2/ HTTP/1.1\r\nHost: 127.0.0.01:PORT":                                                         403,
		"GET /v2/ HTTP/1.1\r\nHost: localhost\x00:PORT":                                                      400,
		"GET /v2/ HTTP/1.1\r\nHost: HOST\r\nX: a\x00b":                                                       400,
		"GET /v2/ HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\nContent-Length: 6":                          400,
		"POST /v2/x/blobs/uploads/ HTTP/1.1\r\nHost: HOST\r\nContent-Length: +0":                             400,
		"POST /v2/x/blobs/uploads/ HTTP/1.1\r\nHost: HOST\r\nContent-Length: -1":                             400,
		"POST /v2/x/blobs/uploads/ HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: identity":                    501,
		"POST /v2/x/blobs/uploads/ HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked, chunked":            501,
		"POST /v2/x/blobs/uploads/ HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding : chunked":                    400,
		"GET /v2/app%2Fhello/manifests/v1 HTTP/1.1\r\nHost: HOST":                                            200,
		"GET /v2/app%2fhello%2fmanifests%2fv1 HTTP/1.1\r\nHost: HOST":                                        200,
		"GET /v2/x/%2e%2e/app/hello/manifests/v1 HTTP/1.1\r\nHost: HOST":                                     400,
		"GET /v2/x/../app/hello/manifests/v1 HTTP/1.1\r\nHost: HOST":                                         400,
		"GET /v2/app/hello/manifests/..%2f..%2fv1 HTTP/1.1\r\nHost: HOST":                                    404,
		"GET /v2/app/hello%00/manifests/v1 HTTP/1.1\r\nHost: HOST":                                           400,
		"GET /v2/app/hello/manifests/v1%00 HTTP/1.1\r\nHost: HOST":                                           400,
		"GET /v2/app/hello/manifests/v1%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: HOST":                             400,
		"GET /v2/app/hello\\manifests\\v1 HTTP/1.1\r\nHost: HOST":                                            404,
		"GET //v2/app/hello/manifests/v1 HTTP/1.1\r\nHost: HOST":                                             404,
		"GET /v2/app//hello/manifests/v1 HTTP/1.1\r\nHost: HOST":                                             400,
		"GET /V2/app/hello/manifests/v1 HTTP/1.1\r\nHost: HOST":                                              404,
		"GET /v2/app/hello/manifests/v1/ HTTP/1.1\r\nHost: HOST":                                             404,
		"GET /v2/app/hello/manifests/v1;x=y HTTP/1.1\r\nHost: HOST":                                          400,
		"GET /v2/app/hello/manifests/v1#x HTTP/1.1\r\nHost: HOST":                                            400,
		"get /v2/ HTTP/1.1\r\nHost: HOST":                                                                    405,
		"GET /v2/ HTTP/1.0\r\nHost: HOST":                                                                    200,
		"GET /v2/ HTTP/2.0\r\nHost: HOST":                                                                    505,
		"CONNECT evil.test:80 HTTP/1.1\r\nHost: HOST":                                                        403,
		"GET /v2/app/hello/blobs/sha256:../../../../../../../../etc/passwd HTTP/1.1\r\nHost: HOST":           404,
		"GET /v2/app/hello/blobs/sha256:..%2f..%2f..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: HOST":             404,
		"PATCH /v2/x/blobs/uploads/..%2f..%2findex.json HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0":         404,
		"PATCH /v2/x/blobs/uploads/sha256-%00aaaaaaaaaaaaaaaaaa HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0": 404,
	} {
		c := dial(t, addr)
		c.say("%s\r\n\r\n", strings.NewReplacer("HOST", addr, "PORT", port).Replace(request))
		if resp := c.hear(); resp.StatusCode != want || resp.Header.Get("X-Evil") != "" {
			t.Errorf("%q: status %d, want %d", request, resp.StatusCode, want)
		}
	}
}

// Requests that come together are answered one after the other, each on its own.
func TestRequestsInOnePiece(t *testing.T) {
	f := serve(t, nil)
	f.image("app/hello", "v1", ociImage)
	addr := f.listen()
	c := dial(t, addr)
	small := "PUT /v2/x/manifests/v1 HTTP/1.1\r\nHost: " + addr + "\r\nContent-Type: " + ociIndex + "\r\n"
	chunked := fmt.Sprintf("Transfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n%x\r\n%s\r\n0\r\nAuthorization: Basic eDp5\r\n\r\n", len(emptyIndex), emptyIndex)
	get := "GET /v2/x/manifests/v1 HTTP/1.1\r\nHost: " + addr + "\r\n\r\n"
	c.say("%s", small+chunked+get+"GET /v2/none/manifests/v1 HTTP/1.1\r\nHost: "+addr+"\r\n\r\n"+get)
	for i, want := range []int{201, 200, 404, 200} {
		resp := c.hear()
		body, err := io.ReadAll(resp.Body)
		if resp.StatusCode != want || err != nil || want == 200 && string(body) != emptyIndex {
			t.Errorf("answer %d: status %d, %v, %s", i, resp.StatusCode, err, body)
		}
	}
}

// What is refused by its length is not asked for, and the connection ends with that.
func TestWhatIsTooLargeIsNotAwaited(t *testing.T) {
	f := serve(t, nil)
	addr := f.listen()
	c := dial(t, addr)
	c.say("PUT /v2/x/manifests/v1 HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", addr, 10<<30)
	if resp := c.hear(); resp.StatusCode != http.StatusRequestEntityTooLarge || !resp.Close {
		t.Errorf("status %d, closed: %v", resp.StatusCode, resp.Close)
	}
}

// An upload belongs to the repository in which it was begun.
func TestAnUploadOfAnotherRepository(t *testing.T) {
	f := serve(t, nil)
	at := f.do("POST", "/v2/a/blobs/uploads/", "").Header.Get("Location")
	elsewhere := strings.Replace(at, "/v2/a/", "/v2/b/", 1)
	d := digest.FromString("x")
	for _, method := range []string{"GET", "PATCH", "PUT", "DELETE"} {
		f.want(f.do(method, elsewhere+"?digest="+string(d), "x"), http.StatusNotFound)
	}
	f.want(f.do("PUT", at+"?digest="+string(d), "x"), http.StatusCreated)
	f.want(f.do("GET", "/v2/b/blobs/"+string(d), ""), http.StatusNotFound)
}

// A range is refused whose length is beyond all numbers, also where the body's is not told.
func TestAChunkBeyondAllNumbers(t *testing.T) {
	f := serve(t, nil)
	addr := f.listen()
	for _, length := range []string{"Content-Length: 2\r\n\r\nab", "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"} {
		for _, text := range []string{"0-9223372036854775807", "0-18446744073709551615", "9223372036854775807-9223372036854775807", "-1-1", "0-1-2", "1-2"} {
			at := f.do("POST", "/v2/x/blobs/uploads/", "").Header.Get("Location")
			c := dial(t, addr)
			c.say("PATCH %s HTTP/1.1\r\nHost: %s\r\nContent-Range: %s\r\n%s", at, addr, text, length)
			if resp := c.hear(); resp.StatusCode != http.StatusRequestedRangeNotSatisfiable {
				t.Errorf("%s, %.20s: status %d", text, length, resp.StatusCode)
			}
		}
	}
}

// What is in one repository is not to be had by way of another, by no kind of request.
func TestNothingIsReadAcrossRepositories(t *testing.T) {
	f := withTokens(t)
	ada := "Bearer " + f.token("ada", "repository:app/secret:pull,push,delete").Token
	f.want(f.push("app/secret", artifact("a/b"), "Authorization", ada), http.StatusCreated)
	d, blob := digest.FromString(artifact("a/b")), digest.FromString("{}")
	bob := "Bearer " + f.token("bob", "repository:bob/x:pull,push").Token
	for _, path := range []string{"manifests/" + string(d), "blobs/" + string(blob), "blobs/" + string(d)} {
		for _, method := range []string{"GET", "HEAD"} {
			f.want(f.do(method, "/v2/bob/x/"+path, "", "Authorization", bob), http.StatusNotFound)
			f.want(f.do(method, "/v2/app/secret/"+path, "", "Authorization", bob), http.StatusUnauthorized)
		}
	}
	f.want(f.do("POST", "/v2/bob/x/blobs/uploads/?mount="+string(blob)+"&from=app/secret", "", "Authorization", bob), http.StatusAccepted)
	f.want(f.do("POST", "/v2/bob/x/blobs/uploads/?mount="+string(blob), "", "Authorization", bob), http.StatusAccepted)
	refers := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, ociIndex, ociImage, d, len(artifact("a/b")))
	f.want(f.do("PUT", "/v2/bob/x/manifests/v1", refers, "Authorization", bob, "Content-Type", ociIndex), http.StatusBadRequest)
	f.want(f.do("GET", "/v2/_catalog", "", "Authorization", bob), http.StatusForbidden)
}

// Names with which somebody might ask for more than one repository are names of none.
func TestScopesThatReachFurther(t *testing.T) {
	f := withTokens(t)
	ada := "Bearer " + f.token("ada", "repository:app/hello:pull,push").Token
	f.want(f.do("PUT", "/v2/app/hello/manifests/v1", emptyIndex, "Authorization", ada), http.StatusCreated)
	for _, scope := range []string{
		"repository:*:pull", "repository:**:*", "repository:app/**:pull", "repository:app/*:pull", "repository:public/../app/hello:pull",
		"repository:public/x,app/hello:pull", "repository:public/x\nrepository:app/hello:pull", "repository:app/hello\x00:pull",
		"registry:catalog:*", "registry:*:*", "registry:app/hello:pull", "repository(plugin):app/hello:pull", "repository:APP/hello:pull",
		"repository:app/hello:*", "repository:app/hello:pull,push,delete,admin", "*:*:*", "repository:{public/x,app/hello}:pull",
	} {
		resp := f.do("GET", server.TokenPath+"?"+url.Values{"scope": {scope}}.Encode(), "")
		if resp.StatusCode != http.StatusOK {
			continue
		}
		var got given
		if err := json.Unmarshal([]byte(f.body(resp)), &got); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/v2/app/hello/manifests/v1", "/v2/_catalog", "/v2/app/hello/tags/list"} {
			if resp := f.do("GET", path, "", "Authorization", "Bearer "+got.Token); resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("a token for %q: %s: status %d", scope, path, resp.StatusCode)
			}
		}
	}
}

// A token is good where it was given, and nowhere else.
func TestATokenOfAnotherProcess(t *testing.T) {
	one, other := withTokens(t), withTokens(t)
	token := one.token("ada", "repository:app/hello:pull").Token
	one.want(one.do("GET", "/v2/", "", "Authorization", "Bearer "+token), http.StatusOK)
	other.want(other.do("GET", "/v2/", "", "Authorization", "Bearer "+token), http.StatusUnauthorized)
}

// A line of the access log is one line, whatever is asked for and whoever asks.
func TestNoLineIsForged(t *testing.T) {
	var out bytes.Buffer
	f := serve(t, &server.Options{AccessLog: slog.New(slog.NewTextHandler(&out, nil))})
	f.do("GET", "/v2/x%0Atime=now%20level=INFO/manifests/v1", "", "User-Agent", "a\ntool \"status=200\" \x1b[2J")
	if text := out.String(); strings.Count(text, "\n") != 1 || strings.Contains(text, "\x1b") || strings.Count(text, " status=") != 1 || !strings.Contains(text, `\nti`) {
		t.Errorf("%q", text)
	}
}

// However many things are wrong, an answer tells as many as somebody would read.
func TestAnAnswerHasABoundedNumberOfErrors(t *testing.T) {
	f := serve(t, nil)
	var layers strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&layers, `{"mediaType":"a/b","digest":%q,"size":1},`, digest.FromString(fmt.Sprint(i)))
	}
	raw := strings.Replace(artifact("a/b"), `"layers":[`, `"layers":[`+layers.String(), 1)
	resp := f.want(f.do("PUT", "/v2/x/manifests/v1", raw), http.StatusBadRequest)
	if body := f.body(resp); len(body) > 64<<10 || !strings.Contains(body, berth.Code(berth.ErrManifestBlobUnknown)) {
		t.Errorf("%d bytes: %.200s", len(body), body)
	}
}
