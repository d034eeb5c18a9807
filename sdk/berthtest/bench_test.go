package berthtest_test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/berthoci/berth/sdk/berthtest"
)

// rounds is how often each side is measured.
const rounds = 101

// BenchmarkNew compares a registry with httptest's server: start, one request, end. Both are measured in one run,
// interleaved, and what counts is the ratio of their medians: absolute times mean little on a machine that does other
// things too.
func BenchmarkNew(b *testing.B) {
	dir := b.TempDir()
	var ours, floor []time.Duration
	for round := range rounds {
		floor = append(floor, timed(func() {
			server := httptest.NewServer(http.NotFoundHandler())
			knock(b, server.URL)
			server.Close()
		}))
		layout := filepath.Join(dir, strconv.Itoa(round)) // to make and to remove a directory is the test's, on both sides
		ours = append(ours, timed(func() {
			registry := berthtest.NewWith(b, &berthtest.Options{Layout: layout})
			knock(b, registry.URL()+"/v2/")
			must(b, registry.Close())
		}))
	}
	b.ReportMetric(float64(median(ours))/float64(median(floor)), "times-httptest")
	b.ReportMetric(float64(median(ours).Microseconds())/1000, "ms")
	b.ReportMetric(float64(median(floor).Microseconds())/1000, "httptest-ms")
	b.ReportMetric(0, "ns/op")
}

func knock(b *testing.B, url string) {
	resp, err := http.Get(url)
	must(b, err)
	resp.Body.Close()
}

func timed(work func()) time.Duration {
	begin := time.Now()
	work()
	return time.Since(begin)
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}
