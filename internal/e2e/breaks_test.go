//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

var (
	syncSize = flag.Int64("sync-size", 96, "size of the layer that is synced over links that break, in MiB")
	syncTime = flag.Duration("sync-time", 4*time.Second, "how long that layer takes over such a link, without the breaks")
)

// breakable is a TCP link to a registry that is slow, counts what goes up, and can be cut.
type breakable struct {
	*shell
	rate int64        // bytes a second that go up; zero: as many as will
	sent atomic.Int64 // bytes that went up

	listener net.Listener
	passing  sync.WaitGroup

	mu   sync.Mutex // guards the fields below
	to   string
	open []net.Conn
}

func (s *shell) breakable(to string, rate int64) *breakable {
	s.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	s.check(err)
	l := &breakable{shell: s, rate: rate, listener: listener, to: to}
	l.passing.Go(l.serve)
	s.Cleanup(func() {
		listener.Close()
		l.cut()
		l.passing.Wait()
	})
	return l
}

func (l *breakable) host() string { return l.listener.Addr().String() }

// leadTo names the registry, which may need to know this link's host first.
func (l *breakable) leadTo(registry string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to = registry
}

func (l *breakable) dial() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return net.Dial("tcp", l.to)
}

func (l *breakable) serve() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		registry, err := l.dial()
		if err != nil {
			client.Close()
			continue
		}
		l.mu.Lock()
		l.open = append(l.open, client, registry)
		l.mu.Unlock()
		l.passing.Go(func() { defer client.Close(); defer registry.Close(); io.Copy(client, registry) })
		l.passing.Go(func() { defer client.Close(); defer registry.Close(); l.up(registry, client) })
	}
}

// up passes bytes on, as many in a second as the link has for one connection.
func (l *breakable) up(registry io.Writer, client io.Reader) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := client.Read(buffer)
		l.sent.Add(int64(n))
		if _, failed := registry.Write(buffer[:n]); failed != nil || err != nil {
			return
		}
		if l.rate > 0 {
			time.Sleep(time.Duration(int64(n) * int64(time.Second) / l.rate))
		}
	}
}

// cut ends all connections.
func (l *breakable) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.open {
		conn.Close()
	}
	l.open = nil
}

// after waits until so many bytes went up, or the test has no more time.
func (l *breakable) after(ctx context.Context, bytes int64) bool {
	for l.sent.Load() < bytes {
		if ctx.Err() != nil {
			return false
		}
		time.Sleep(5 * time.Millisecond)
	}
	return true
}

// large is a layout with an image of one large layer.
func (s *shell) large(host string) *syncing {
	s.Helper()
	made := s.path("made")
	y := &syncing{shell: s, layout: s.path("layout"), host: host, root: s.umociImage(made, "v1", *syncSize<<20)}
	s.must("berth", "--layout", y.layout, "push", "oci:"+made+":v1", "app/big:v1")
	return y
}

// A link that breaks five times, to a registry whose tokens last two seconds: the sync ends well, and sends what was lost on
// the way once more, and no more.
func TestASyncOverALinkThatBreaks(t *testing.T) {
	s := newShell(t)
	tokens := s.tokenServer()
	tokens.life = 2 * time.Second
	size := *syncSize << 20
	link := s.breakable(s.registry(tokens.config()), size*int64(time.Second)/int64(*syncTime))
	y := s.large(link.host())
	right := s.loggedIn(y.host, password)
	ctx, cancel := context.WithCancel(t.Context())
	var cutting sync.WaitGroup
	cutting.Go(func() {
		for i := range int64(5) {
			if !link.after(ctx, size*(i+1)/6) {
				return
			}
			link.cut()
		}
	})
	y.wantCode("sync", y.sync(right), 0, "synced")
	cancel()
	cutting.Wait()
	y.arrived(right)
	if most := size + 5*(16<<20) + 1<<20; link.sent.Load() > most {
		t.Errorf("%d bytes went up, %d would do", link.sent.Load(), most)
	}
	t.Logf("%d bytes went up of %d", link.sent.Load(), size)
}

// A sync that is killed again and again comes to its end, and what had arrived is not sent again. Nobody ever sees a tag of an
// image that is not whole.
func TestASyncThatIsKilled(t *testing.T) {
	s := newShell(t)
	registry := s.registry("")
	size := *syncSize << 20
	link := s.breakable(registry, size*int64(time.Second)/int64(*syncTime))
	y := s.large(link.host())
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	seen := 0
	watching.Go(func() { seen = y.wholeOrNothing(ctx, registry) })
	const kills = 5
	for i := range int64(kills) {
		p := s.start("berth", "--layout", y.layout, "sync", "--to", y.host, "app/big:v1")
		link.after(ctx, size*(i+1)/(kills+1)+rand.Int64N(1<<20))
		p.kill()
	}
	out := y.sync(s)
	cancel()
	watching.Wait()
	y.wantCode("the last sync", out, 0, "synced")
	y.arrived(s)
	if there, err := y.pull(registry, true); !there || err != nil {
		t.Errorf("in the end the tag is there: %v, %v", there, err)
	}
	if most := size + kills*(16<<20); link.sent.Load() > most {
		t.Errorf("%d bytes went up, %d would do", link.sent.Load(), most)
	}
	t.Logf("%d bytes went up of %d, and the tag was seen %d times before the end", link.sent.Load(), size, seen)
}

// wholePulls is how often what the tag names is read to its end while it is watched. That costs more than to ask for it.
const wholePulls = 3

// wholeOrNothing pulls by the tag all the time: what it names has to be there, all of it. It returns how often the tag was there.
func (y *syncing) wholeOrNothing(ctx context.Context, registry string) (seen int) {
	for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		there, err := y.pull(registry, seen < wholePulls)
		if err != nil {
			y.Error(err)
		}
		if there {
			seen++
		}
	}
	return seen
}

// pull asks for the tag and, where it is there, for every blob that it names: for its size, or for all its bytes.
func (y *syncing) pull(registry string, whole bool) (there bool, err error) {
	base := "http://" + registry + "/v2/app/big/"
	resp, err := ask(y.Context(), http.MethodGet, base+"manifests/v1")
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return false, nil
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil || digest.FromBytes(raw) != y.root {
		return true, fmt.Errorf("the tag names %.200s, %s, want %s: %v", raw, resp.Status, y.root, err)
	}
	var manifest v1.Manifest
	err = json.Unmarshal(raw, &manifest)
	for _, desc := range append(manifest.Layers, manifest.Config) {
		err = errors.Join(err, y.pullOne(base+"blobs/"+string(desc.Digest), desc, whole))
	}
	return true, err
}

func (y *syncing) pullOne(url string, desc v1.Descriptor, whole bool) error {
	method, content := http.MethodHead, desc.Digest.Verifier()
	if whole {
		method = http.MethodGet
	}
	resp, err := ask(y.Context(), method, url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(content, resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || resp.ContentLength != desc.Size || whole && !content.Verified() {
		return fmt.Errorf("the tag is there, and %s is not what it should be: %s, %d bytes, want %d: %v", url, resp.Status, resp.ContentLength, desc.Size, err)
	}
	return nil
}
