package server_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/ocilayout"
	"github.com/berthoci/berth/server"
)

// rounds is how often what is compared is measured, in turns; the medians count.
const rounds = 7

// BenchmarkManifestByTag compares a GET of a manifest with a bare handler that writes the same bytes:
// the ratio of their requests in a second.
func BenchmarkManifestByTag(b *testing.B) {
	raw := bytes.Repeat([]byte(" "), 1<<10)
	copy(raw, emptyIndex)
	layout, err := ocilayout.Open(b.Context(), b.TempDir(), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer layout.Close()
	registry := httptest.NewServer(server.New(layout, nil))
	defer registry.Close()
	target := registry.URL + "/v2/app/hello/manifests/v1"
	put(b, target, raw)
	bare := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", v1.MediaTypeImageIndex)
		w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
		w.Write(raw)
	}))
	defer bare.Close()
	var ours, floor []float64
	for b.Loop() {
		for range rounds {
			ours = append(ours, rate(b, target))
			floor = append(floor, rate(b, bare.URL))
		}
	}
	b.ReportMetric(median(ours)/median(floor), "of-bare-handler")
	b.ReportMetric(median(ours), "requests/s")
}

func put(b *testing.B, target string, raw []byte) {
	b.Helper()
	req, err := http.NewRequest(http.MethodPut, target, bytes.NewReader(raw))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Content-Type", v1.MediaTypeImageIndex)
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusCreated {
		b.Fatal(resp, err)
	}
	resp.Body.Close()
}

// rate is how many GETs a second are answered to four clients.
func rate(b *testing.B, target string) float64 {
	const clients, requests = 4, 2_000
	accept := strings.Join(manifest.MediaTypes(), ", ")
	begin := time.Now()
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for range requests {
				req, _ := http.NewRequest(http.MethodGet, target, nil)
				req.Header.Set("Accept", accept)
				resp, err := client.Do(req)
				if err != nil || resp.StatusCode != http.StatusOK {
					b.Error(resp, err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
	wg.Wait()
	return clients * requests / time.Since(begin).Seconds()
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}
