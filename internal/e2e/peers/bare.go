//go:build linux

package main

import (
	"net/http"
	"strconv"
	"strings"
)

// bareCommand is the argument with which this program is the bare handler's process.
const bareCommand = "serve-bare"

// serveBare answers every request for the image's manifest with the same bytes: what net/http itself costs.
func serveBare(address string) error {
	raw := taggedImage().manifest
	return http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return
		}
		w.Header().Set("Content-Type", manifestType)
		w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
		w.Write(raw)
	}))
}
