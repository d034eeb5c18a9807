//go:build linux

package e2e

import (
	"context"
	"flag"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	syncSize = flag.Int64("sync-size", 96, "size of the layer that is synced over links that break, in MiB")
	syncTime = flag.Duration("sync-time", 4*time.Second, "how long that layer takes over such a link, without the breaks")
)

// breakable is a TCP link to a registry that is slow, counts what goes up, and can be cut.
type breakable struct {
	*shell
	to   string
	rate int64        // bytes a second that go up; zero: as many as will
	sent atomic.Int64 // bytes that went up

	listener net.Listener
	passing  sync.WaitGroup

	mu   sync.Mutex // guards the field below
	open []net.Conn
}

func (s *shell) breakable(to string, rate int64) *breakable {
	s.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	s.check(err)
	l := &breakable{shell: s, to: to, rate: rate, listener: listener}
	l.passing.Go(l.serve)
	s.Cleanup(func() {
		listener.Close()
		l.cut()
		l.passing.Wait()
	})
	return l
}

func (l *breakable) host() string { return l.listener.Addr().String() }

func (l *breakable) serve() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		registry, err := net.Dial("tcp", l.to)
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
	watching.Go(func() { y.wholeOrNothing(ctx, registry) })
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
	if most := size + kills*(16<<20); link.sent.Load() > most {
		t.Errorf("%d bytes went up, %d would do", link.sent.Load(), most)
	}
	t.Logf("%d bytes went up of %d", link.sent.Load(), size)
}

// wholeOrNothing looks at the registry all the time: what the tag names has to be there, all of it.
func (y *syncing) wholeOrNothing(ctx context.Context, registry string) {
	for ctx.Err() == nil {
		resp, err := http.Get("http://" + registry + "/v2/app/big/manifests/v1")
		if err != nil {
			continue
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			y.blobsThere(registry)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (y *syncing) blobsThere(registry string) {
	for _, blob := range y.blobsOf(y.path("made")) {
		url := "http://" + registry + "/v2/app/big/blobs/" + string(blob)
		if blob == y.root {
			url = "http://" + registry + "/v2/app/big/manifests/" + string(blob)
		}
		resp, err := http.Head(url)
		if err != nil {
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			y.Errorf("the tag is there, and %s is not: %s", blob, resp.Status)
		}
	}
}
