//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth/internal/e2e/systrace"
)

const (
	// tracedLayer is the size of what is pulled under strace.
	tracedLayer = 64 << 20
	// besides is how many bytes berth may write by itself meanwhile: heads of answers with the beginning of
	// the bodies, and its files.
	besides = 256 << 10
)

// A blob is sent by the kernel from its file to the connection, in whole or a range of it, and never comes
// through berth's own memory.
func TestABlobIsSentByTheKernel(t *testing.T) {
	s := newShell(t)
	made, layout := s.path("made"), s.path("layout")
	s.umociImage(made, "v1", tracedLayer)
	layer := s.largestBlobOf(made)
	s.must("berth", "--layout", layout, "push", "oci:"+made, "app/big:v1")

	for name, header := range map[string]string{"whole": "", "a range": "bytes=1000000-60000000"} {
		t.Run(name, func(t *testing.T) {
			s := s.in(t)
			trace := t.TempDir() + "/trace"
			args := append(systrace.Args(trace), program(t, "berth"), "serve", "--layout", layout, "--addr", "127.0.0.1:0")
			server := s.start("strace", args...)
			address := server.await(&server.stdout, servingLine)
			length := s.pullBlob(address, layer, header)
			server.stop()
			counts, err := systrace.Read(trace)
			s.check(err)
			s.Logf("%d bytes were pulled: %v", length, counts)
			s.sentByKernel(counts, length)
		})
	}
}

// sentByKernel makes sure that so many bytes were sent by sendfile, and few by any other call.
func (s *shell) sentByKernel(counts map[string]systrace.Count, length int64) {
	s.Helper()
	for call, count := range counts {
		if call == systrace.Sendfile && count.Bytes < length-besides || call != systrace.Sendfile && count.Bytes > besides {
			s.Errorf("%s moved %d bytes of %d", call, count.Bytes, length)
		}
	}
	if _, used := counts[systrace.Sendfile]; !used {
		s.Error("sendfile was not called")
	}
}

// pullBlob fetches a blob of app/big, or a range of it, and returns how many bytes came.
func (s *shell) pullBlob(address string, d digest.Digest, ranges string) int64 {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), http.MethodGet, fmt.Sprintf("http://%s/v2/app/big/blobs/%s", address, d), nil)
	s.check(err)
	if ranges != "" {
		req.Header.Set("Range", ranges)
	}
	resp, err := http.DefaultClient.Do(req)
	s.check(err)
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	s.check(err)
	if resp.StatusCode/100 != 2 || n < tracedLayer/2 {
		s.Fatalf("%s: %d bytes", resp.Status, n)
	}
	return n
}

// largestBlobOf is the digest of a layout's largest blob.
func (s *shell) largestBlobOf(dir string) digest.Digest {
	s.Helper()
	path := s.largestBlob(dir)
	return digest.NewDigestFromEncoded(digest.SHA256, path[len(path)-64:])
}
