//go:build linux

package e2e

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/crypto/bcrypt"
)

const (
	// siege is how long an attack goes on that has no end of its own.
	siege = 4 * time.Second
	// tinyWindow is about how much a client that reads nothing lets the server send, in bytes.
	tinyWindow = 2 << 10
	// hugeBody is how much some bodies say that they have, in bytes.
	hugeBody = 10 << 30
)

// url is an address in the API.
func (v *victim) url(path string) string { return "http://" + v.address + "/v2/" + path }

// head is that of a request by hand, up to the fields that are particular to it.
func (v *victim) head(method, path string) string {
	return fmt.Sprintf("%s /v2/%s HTTP/1.1\r\nHost: %s\r\n", method, path, v.address)
}

// callers opens many connections. Each begins with what say returns for it.
func (v *victim) callers(n int, say func(i int) string) []*caller {
	v.Helper()
	all := make([]*caller, n)
	for i := range all {
		c, err := v.dial()
		v.check(err)
		v.calling = append(v.calling, c)
		c.SetReadBuffer(tinyWindow)
		c.Write([]byte(say(i))) // who is not let in finds out when it reads
		all[i] = c
	}
	return all
}

// trickle sends a byte on each of the connections again and again, for as long as a siege is.
func trickle(all []*caller) {
	for end := time.Now().Add(siege); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		for _, c := range all {
			c.Write([]byte("x")) // which the server may have closed
		}
	}
}

func (v *victim) upload(content []byte) digest.Digest {
	v.Helper()
	return v.shell.upload(v.url("app/hello"), v1.MediaTypeImageLayer, content).Digest
}

// Whoever sends or reads slowly keeps nobody else waiting.
func TestAbuseBySlowClients(t *testing.T) {
	v := newShell(t).victim()
	big := v.upload(make([]byte, 64<<20))
	bodies := []string{
		v.head("PUT", "app/slow/manifests/v1") + "Content-Length: 30000\r\n\r\n",
		v.head("PUT", "app/slow/manifests/v1") + "Content-Length: 60000\r\n\r\n",
		v.head("PUT", "app/slow/manifests/v1") + "Content-Length: 60000\r\n\r\n" + strings.Repeat("x", 50_000),
		v.head("PUT", "app/slow/manifests/v1") + "Content-Length: 4000000\r\n\r\n",
		v.head("PUT", "app/slow/manifests/v1") + "Transfer-Encoding: chunked\r\n\r\n100000\r\n",
		v.head("POST", "app/slow/blobs/uploads/?digest="+string(big)) + "Content-Length: 60000\r\n\r\n",
		v.head("PUT", "nothing/here") + "Content-Length: 60000\r\n\r\n",
	}
	v.during(func() {
		slow := v.callers(500, func(int) string { return v.head("GET", "") + "X-Slow: " })
		slow = append(slow, v.callers(300, func(int) string { return bodies[0] })...)
		slow = append(slow, v.callers(200, func(i int) string { return bodies[i%len(bodies)] })...)
		v.callers(100, func(int) string { return v.head("GET", "app/hello/blobs/"+string(big)) + "\r\n" })
		trickle(slow)
		v.hangUp()
	})
}

// A body beyond all measure is refused, and the rest of it is not awaited.
func TestAbuseByHugeManifests(t *testing.T) {
	v := newShell(t).victim()
	v.during(func() {
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() { v.sendHuge(i%2 == 0) })
		}
		all.Wait()
	})
}

// sendHuge sends as much of a huge manifest as the server takes.
func (v *victim) sendHuge(chunked bool) {
	c, err := v.dial()
	if err != nil {
		v.Error(err)
		return
	}
	defer c.Close()
	length, piece := fmt.Sprintf("Content-Length: %d", int64(hugeBody)), strings.Repeat(" ", 64<<10)
	if chunked {
		length, piece = "Transfer-Encoding: chunked", fmt.Sprintf("%x\r\n%s\r\n", len(piece), piece)
	}
	c.SetDeadline(time.Now().Add(patience))
	c.Write([]byte(v.head("PUT", "app/huge/manifests/v1") + length + "\r\n\r\n"))
	sent := 0
	for ; sent < hugeBody; sent += len(piece) {
		if _, err := c.Write([]byte(piece)); err != nil {
			break
		}
	}
	if sent > 64<<20 {
		v.Errorf("%s: the server took %d bytes", length, sent)
	}
	if resp, err := c.hear("PUT"); err == nil && (resp.StatusCode != http.StatusRequestEntityTooLarge || !resp.Close) { // the answer may be lost
		v.Errorf("%s: status %d, closed: %v", length, resp.StatusCode, resp.Close)
	}
}

// Of uploads beyond number some go through, whole, and the others are asked to come again.
func TestAbuseByManyUploads(t *testing.T) {
	const conns, each = 1000, 10
	v := newShell(t).victim()
	all := make([][]digest.Digest, conns)
	says := make([]string, conns)
	for i := range all {
		for n := range each {
			content := strings.Repeat(fmt.Sprintln("upload", i, n), 50)
			d := digest.FromString(content)
			all[i] = append(all[i], d)
			says[i] += v.head("POST", "app/many/blobs/uploads/?digest="+string(d)) + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(content)) + content
		}
	}
	var taken []digest.Digest
	refused := 0
	v.during(func() {
		for i, c := range v.callers(conns, func(i int) string { return says[i] }) {
			c.SetDeadline(time.Now().Add(patience))
			for _, d := range all[i] {
				switch resp, err := c.hear("POST"); {
				case err != nil:
					t.Fatalf("%d were taken and %d refused before one had no answer: %v", len(taken), refused, err)
				case resp.StatusCode == http.StatusCreated:
					taken = append(taken, d)
				case resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") != "":
					refused++
				default:
					t.Fatalf("an upload: %s, Retry-After: %q", resp.Status, resp.Header.Get("Retry-After"))
				}
			}
		}
		v.hangUp()
	})
	for _, d := range taken {
		_, err := os.Stat(blobFile(v.layout, d)) // what is there was hashed
		v.check(err)
	}
	v.Logf("%d were taken, %d refused", len(taken), refused)
}

// Whoever tries passwords keeps out nobody who has one.
func TestAbuseByWrongPasswords(t *testing.T) {
	s := newShell(t)
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
	s.check(err)
	s.write(s.path("users"), user+":"+string(hash)+"\n")
	v := s.victim("--htpasswd", s.path("users"))
	v.header = basic(password)
	first := newProber("the password", false, []string{v.address, string(v.blob), v.header})
	if first.probe(first.questions[0]); first.lost != nil { // from here on it is remembered
		t.Fatal(first.lost)
	}
	v.during(func() {
		end := time.Now().Add(siege)
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() { v.guess(i, end) })
		}
		all.Wait()
	})
}

func basic(password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)) + "\r\n"
}

// guess tries passwords until some time.
func (v *victim) guess(i int, end time.Time) {
	c, err := v.dial()
	if err != nil {
		v.Error(err)
		return
	}
	defer c.Close()
	for n := 0; time.Now().Before(end); n++ {
		resp, err := c.ask("GET", v.head("GET", "")+basic(fmt.Sprint(wrong, i, n))+"\r\n")
		if err != nil || resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusTooManyRequests {
			v.Errorf("a wrong password: %v, %v", resp, err)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Long lists and large manifests that nobody reads do not fill the memory.
func TestAbuseByReadersThatDoNotRead(t *testing.T) {
	v := newShell(t).victim()
	subject := v.fillLists()
	large := v.index(fmt.Sprintf(`"annotations":{"a":%q}`, strings.Repeat("x", 3<<20)))
	v.send("PUT", v.url("app/hello/manifests/large"), v1.MediaTypeImageIndex, large, http.StatusCreated)
	middle := v.index(fmt.Sprintf(`"annotations":{"a":%q}`, strings.Repeat("x", 60<<10)))
	v.send("PUT", v.url("app/hello/manifests/middle"), v1.MediaTypeImageIndex, middle, http.StatusCreated)
	lists := []string{"app/hello/tags/list?n=10000", "app/hello/referrers/" + subject, "_catalog?n=10000", "app/hello/tags/list"}
	v.during(func() {
		all := v.callers(500, func(i int) string { return strings.Repeat(v.head("GET", lists[i%len(lists)])+"\r\n", 4) })
		v.callers(200, func(int) string { return v.head("GET", "app/hello/manifests/large") + "\r\n" })
		v.callers(300, func(int) string { return v.head("GET", "app/hello/manifests/middle") + "\r\n" })
		one := make([]byte, 512)
		for end := time.Now().Add(siege); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
			for _, c := range all[:250] {
				c.SetReadDeadline(time.Now().Add(time.Millisecond))
				c.Read(one)
			}
		}
		v.hangUp()
	})
}

func (v *victim) index(members string) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[],%s}`, v1.MediaTypeImageIndex, members)
}

// fillLists makes many tags, repositories and referrers, and returns what these refer to.
func (v *victim) fillLists() string {
	v.Helper()
	subject := v.index(`"annotations":{}`)
	d := digest.FromBytes(subject)
	for i := range 40 {
		tags := ""
		for n := range 250 {
			tags += fmt.Sprintf("&tag=%0100d", i*250+n)
		}
		v.send("PUT", v.url("app/hello/manifests/"+string(d)+"?"+tags[1:]), v1.MediaTypeImageIndex, subject, http.StatusCreated)
	}
	for i := range 200 {
		v.send("PUT", v.url(fmt.Sprintf("many/%0200d/manifests/v1", i)), v1.MediaTypeImageIndex, subject, http.StatusCreated)
		referrer := v.index(fmt.Sprintf(`"artifactType":"a/b","subject":{"mediaType":%q,"digest":%q,"size":%d},"annotations":{"a":%q}`,
			v1.MediaTypeImageIndex, d, len(subject), strings.Repeat(fmt.Sprint(i), 10<<10)))
		v.send("PUT", v.url("app/hello/manifests/"+string(digest.FromBytes(referrer))), v1.MediaTypeImageIndex, referrer, http.StatusCreated)
	}
	for i := range 20 {
		referrer := v.index(fmt.Sprintf(`"subject":{"mediaType":%q,"digest":%q,"size":%d},"annotations":{"a":%q}`,
			v1.MediaTypeImageIndex, d, len(subject), strings.Repeat(fmt.Sprintf("%x", i%16), 3<<20)))
		v.send("PUT", v.url(fmt.Sprint("app/hello/manifests/r", i)), v1.MediaTypeImageIndex, referrer, http.StatusCreated)
	}
	return string(d)
}
