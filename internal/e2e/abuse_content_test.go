//go:build linux

package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// bomb is a request that is small to make and large to take.
type bomb struct{ method, path, header, body string }

// toTheBrim is how much fits into a manifest beside some words.
const toTheBrim = berth.MaxManifestSize - 1024

// filled repeats a piece until a manifest is full of it.
func filled(before, piece, after string) string {
	return before + strings.Repeat(piece, (toTheBrim-len(before)-len(after))/len(piece)) + after
}

// manyOf joins what is made of each number.
func manyOf(n int, of func(i int) string) string {
	var all strings.Builder
	for i := range n {
		if i > 0 {
			all.WriteByte(',')
		}
		all.WriteString(of(i))
	}
	return all.String()
}

func bombs(blob digest.Digest) []bomb {
	const index = `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageIndex + `",`
	const image = `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageManifest + `",`
	descriptor := func(i int) string {
		return fmt.Sprintf(`{"mediaType":"a/b","digest":%q,"size":%d}`, digest.FromString(fmt.Sprint(i)), i)
	}
	config := `"config":` + descriptor(0)
	put := func(mediaType, body string) bomb {
		return bomb{"PUT", "app/bombs/manifests/v1", "Content-Type: " + mediaType + "\r\n", body}
	}
	get := func(header string) bomb { return bomb{"GET", "app/hello/manifests/v1", header + "\r\n", ""} }
	long := func(piece string) string { return strings.Repeat(piece, 60_000/len(piece)) }
	return []bomb{
		put(v1.MediaTypeImageIndex, filled("", "[", "")),
		put(v1.MediaTypeImageIndex, filled("", `{"a":`, "")),
		put(v1.MediaTypeImageIndex, strings.Repeat("[", toTheBrim/2)+strings.Repeat("]", toTheBrim/2)),
		put(v1.MediaTypeImageIndex, index+`"annotations":`+strings.Repeat(`{"a":`, 300_000)+"1"+strings.Repeat("}", 300_000)+"}"),
		put(v1.MediaTypeImageIndex, filled(index+`"manifests":[`, `{},`, `{}]}`)),
		put(v1.MediaTypeImageManifest, image+config+`,"layers":[`+manyOf(25_000, descriptor)+`]}`),
		put(v1.MediaTypeImageManifest, image+config+`,"layers":[`+manyOf(10_000, descriptor)+`]}`),
		put(v1.MediaTypeImageManifest, image+config+`,"layers":[`+manyOf(10_000, func(int) string { return descriptor(1) })+`]}`),
		put(v1.MediaTypeImageIndex, filled(index+`"manifests":[],"annotations":{"a":"`, `\u0041`, `"}}`)),
		put(v1.MediaTypeImageIndex, filled(index+`"manifests":[],"annotations":{"a":"`, `\ud83d\ude00`, `"}}`)),
		put(v1.MediaTypeImageIndex, filled(index+`"manifests":[],"annotations":{"a":"`, `\\`, `"}}`)),
		put(v1.MediaTypeImageIndex, filled(index+`"manifests":[],"annotations":{`, `"a":"b",`, `"a":"b"}}`)),
		put(v1.MediaTypeImageIndex, index+`"manifests":[],"annotations":{`+manyOf(300_000, func(i int) string { return fmt.Sprintf(`"%d":""`, i) })+`}}`),
		put(v1.MediaTypeImageManifest, filled(image+`"layers":[],"config":{"mediaType":"a/b","size":2,"digest":"`+string(blob)+`","data":"`, "QUFB", `"}}`)),
		put("application/vnd.docker.distribution.manifest.v1+prettyjws", filled(`{"schemaVersion":1,"signatures":[`, `{"header":{},"protected":"e30","signature":"AA"},`, `{}]}`)),
		put("application/vnd.docker.distribution.manifest.v1+json", filled(`{"schemaVersion":1,"fsLayers":[`, `{"blobSum":"`+string(blob)+`"},`, `{}]}`)),
		get("Accept: " + long("application/vnd.oci.image.index.v1+json;q=0, ")),
		get("Accept: " + long(`";,`)),
		get("If-None-Match: " + long(`"x",`)),
		get("If-Match: " + long("*,")),
		{"GET", "app/hello/blobs/" + string(blob), "Range: bytes=" + long("0-0,") + "0-0\r\n", ""},
		{"GET", "app/hello/blobs/" + string(blob), "Range: bytes=0-1" + strings.Repeat(",0-8000", 60) + "\r\n", ""},
		{"GET", "app/hello/tags/list?last=" + long("%00") + "&n=1", "", ""},
		{"PUT", "app/hello/manifests/v1?" + strings.Repeat("tag=a&", 10_000), "", "{}"},
		{"GET", "", "X-Large: " + long("x") + long("x") + "\r\n", ""},
		{"GET", "", strings.Repeat("X: y\r\n", 12_000), ""},
	}
}

// What is small to send and large to read is refused, in the memory that there is for it.
func TestAbuseByContent(t *testing.T) {
	v := newShell(t).victim()
	all := bombs(v.blob)
	v.during(func() {
		var clients sync.WaitGroup
		for i := range 32 {
			clients.Go(func() {
				for n := range 8 {
					v.throw(all[(i+4*n)%len(all)])
				}
			})
		}
		clients.Wait()
	})
}

// throw sends a bomb, whose answer may be anything but a failure of the server; it may also have hung up.
func (v *victim) throw(b bomb) {
	c, err := v.dial()
	if err != nil {
		v.Error(err)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "%s%sConnection: close\r\nContent-Length: %d\r\n\r\n", v.head(b.method, b.path), b.header, len(b.body))
	c.Write([]byte(b.body))
	resp, err := c.hear(b.method)
	if err == nil && resp.StatusCode >= http.StatusInternalServerError {
		v.Errorf("%s %.60s %.60s %.60q: %s", b.method, b.path, b.header, b.body, resp.Status)
	}
}

// Whatever is asked, the server does not fail at it.
func TestAbuseByRandomRequests(t *testing.T) {
	v := newShell(t).victim()
	v.begins = true
	random := v.random()
	requests := make([]bomb, 5000)
	for i := range requests {
		requests[i] = v.randomRequest(random)
	}
	v.during(func() {
		var clients sync.WaitGroup
		for i := range 8 {
			clients.Go(func() {
				for n := i; n < len(requests); n += 8 {
					v.throw(requests[n])
				}
			})
		}
		clients.Wait()
	})
}

// randomRequest puts together parts that are right and parts that are not.
func (v *victim) randomRequest(random *rand.Rand) bomb {
	some := func(all ...string) string { return all[random.IntN(len(all))] }
	noise := func() string {
		raw := make([]byte, random.IntN(40))
		for i := range raw {
			raw[i] = byte(random.IntN(256))
		}
		return string(raw)
	}
	printed := func() string { return strings.Trim(fmt.Sprintf("%q", noise()), `"`) }
	name := some("app/hello", "app/random", "a", "..", "A", "%2e%2e", "a%2Fb", "a//b", "_catalog", "blobs/uploads", strings.Repeat("a/", 200)+"a", printed())
	ref := some("v1", "v2", string(v.blob), "sha256:"+strings.Repeat("a", 64), "sha512:00", "", "%00", printed())
	query := some("", "", "?n=1", "?n=-1", "?last=%ff", "?digest="+string(v.blob), "?mount="+string(v.blob)+"&from=app/hello", "?digest-algorithm=sha512", "?tag=a&tag=b", "?"+printed())
	path := name + some("/manifests/", "/blobs/", "/blobs/uploads/", "/tags/list", "/referrers/", "/", "") + ref + query
	body := some("", "", "{}", string(v.index(`"annotations":{}`)), noise(), strings.Repeat(noise(), 1000))
	header := ""
	for range random.IntN(4) {
		header += some("Accept", "Content-Type", "Range", "If-Match", "If-None-Match", "Content-Range", "Authorization", "Expect", "Origin", "X-"+fmt.Sprint(random.IntN(9))) + ": " +
			some("*", "*/*", "bytes=0-", "0-5", "100-continue", string(v.blob), v1.MediaTypeImageIndex, printed()) + "\r\n"
	}
	method := some("GET", "GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "CONNECT", "FOO", printed())
	if strings.HasPrefix(path, "app/hello/") && method == "DELETE" { // that is the prober's
		method = "GET"
	}
	if strings.HasPrefix(path, "app/hello/manifests/v1") && method == "PUT" {
		path = "app/other/manifests/v1"
	}
	return bomb{method, path, header, body}
}

// Manifests that have to be made for clients of long ago are made one after the other.
func TestAbuseByClientsOfLongAgo(t *testing.T) {
	v := newShell(t).victim()
	config := fmt.Sprintf(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[%q]},"history":[{"created_by":%q}]}`,
		v.blob, strings.Repeat("x", 3<<19))
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
		dockerManifest, dockerConfig, v.upload([]byte(config)), len(config), dockerLayer, v.upload([]byte("layer")), len("layer"))
	tags := ""
	for i := range 200 {
		tags += fmt.Sprintf("&tag=v%d", i)
	}
	v.send("PUT", v.url("app/hello/manifests/"+string(digest.FromString(manifest))+"?"+tags[1:]), dockerManifest, []byte(manifest), http.StatusCreated)
	v.during(func() {
		all := v.callers(200, func(i int) string {
			return v.head("GET", fmt.Sprint("app/hello/manifests/v", i)) + "Accept: application/vnd.docker.distribution.manifest.v1+json\r\n\r\n"
		})
		made := 0
		for _, c := range all {
			c.SetDeadline(time.Now().Add(patience))
			resp, err := c.hear("GET")
			v.check(err)
			if resp.StatusCode == http.StatusOK {
				made++
			} else if resp.StatusCode != http.StatusTooManyRequests {
				v.Errorf("%s", resp.Status)
			}
		}
		v.Logf("%d were made", made)
		v.hangUp()
	})
}
