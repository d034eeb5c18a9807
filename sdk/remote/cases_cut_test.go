package remote_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/sdk/remote"
	"github.com/berthoci/berth/server"
)

// cutter passes connections on, and cuts one each time that so many bytes went to the server through it.
type cutter struct {
	net.Listener
	to    string
	every int64
	left  atomic.Int64 // cuts
	sent  atomic.Int64 // bytes on the way to the server
	conns sync.WaitGroup

	mu   sync.Mutex // guards the field below
	open []net.Conn
}

func cutBefore(t *testing.T, registry string, every int64, cuts int) *cutter {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{Listener: listener, to: registry, every: every}
	c.left.Store(int64(cuts))
	c.conns.Go(c.serve)
	t.Cleanup(c.end)
	return c
}

func (c *cutter) end() {
	c.Close()
	c.mu.Lock()
	for _, conn := range c.open {
		conn.Close()
	}
	c.mu.Unlock()
	c.conns.Wait()
}

func (c *cutter) serve() {
	for {
		client, err := c.Accept()
		if err != nil {
			return
		}
		registry, err := net.Dial("tcp", c.to)
		if err != nil {
			client.Close()
			continue
		}
		c.mu.Lock()
		c.open = append(c.open, client, registry)
		c.mu.Unlock()
		c.conns.Go(func() {
			defer client.Close()
			defer registry.Close()
			io.Copy(client, registry)
		})
		c.conns.Go(func() {
			defer client.Close()
			defer registry.Close()
			c.pass(registry, client)
		})
	}
}

func (c *cutter) pass(registry io.Writer, client io.Reader) {
	buffer := make([]byte, 64<<10)
	for passed := int64(0); ; {
		n, err := client.Read(buffer)
		c.sent.Add(int64(n))
		if passed += int64(n); passed > c.every && c.left.Add(-1) >= 0 {
			return
		}
		if _, failed := registry.Write(buffer[:n]); err != nil || failed != nil {
			return
		}
	}
}

func randomBlob(t *testing.T, size int) ([]byte, v1.Descriptor) {
	t.Helper()
	content := make([]byte, size)
	random := rand.NewChaCha8([32]byte{byte(size)})
	random.Read(content)
	return content, v1.Descriptor{Digest: digest.FromBytes(content), Size: int64(size)}
}

func opener(content []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
}

func TestCase17APushThatBreaksOffGoesOnWhereItWas(t *testing.T) {
	content, desc := randomBlob(t, 48<<20)
	link := cutBefore(t, serve(t, &server.Options{Hosts: []string{"127.0.0.1"}}), 8<<20, 5)
	repo := repository(t, link.Addr().String(), nil)
	var sent int64
	err := repo.PushBlob(t.Context(), desc, opener(content), &remote.BlobOptions{Sent: func(n int, _ int64) { sent += int64(n) }})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := repo.StatBlob(t.Context(), desc.Digest); err != nil || got.Size != desc.Size {
		t.Errorf("got %+v, %v", got, err)
	}
	if link.left.Load() >= 0 {
		t.Errorf("%d cuts were not made", link.left.Load())
	}
	if most := desc.Size + 5*(16<<20); link.sent.Load() > most {
		t.Errorf("%d bytes went over the link, and %d would do", link.sent.Load(), most)
	}
}

// What one process has begun another one can end.
func TestCase23APushThatWasCancelledIsContinued(t *testing.T) {
	content, desc := randomBlob(t, 40<<20)
	host := serve(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var id string
	var first int
	opts := &remote.BlobOptions{Began: func(begun string) { id = begun }, Sent: func(n int, _ int64) {
		if first += n; first > 20<<20 {
			cancel()
		}
	}}
	if err := repository(t, host, nil).PushBlob(ctx, desc, opener(content), opts); err == nil || id == "" {
		t.Fatalf("got %v, and an upload %q", err, id)
	}
	second := 0
	opts = &remote.BlobOptions{Upload: id, Sent: func(n int, _ int64) { second += n }}
	repo := repository(t, host, nil)
	if err := repo.PushBlob(t.Context(), desc, opener(content), opts); err != nil {
		t.Fatal(err)
	}
	if second >= len(content) {
		t.Errorf("all %d bytes were sent again", second)
	}
	if _, err := repo.StatBlob(t.Context(), desc.Digest); err != nil {
		t.Error(err)
	}
}

// An upload that the registry has forgotten, or that is another blob's, is no reason to fail.
func TestCase17AnUploadThatIsGoneIsBegunAnew(t *testing.T) {
	content, desc := randomBlob(t, 3<<20)
	repo := repository(t, serve(t, nil), nil)
	other, err := repo.NewUpload(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Write([]byte("something else")); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"nothing", strings.Repeat("x", 300), other.ID()} {
		if err := repo.PushBlob(t.Context(), desc, opener(content), &remote.BlobOptions{Upload: id}); err != nil {
			t.Errorf("%.20s: %v", id, err)
		}
	}
}
