// Package hermetic is a release tool of one function, which knows nothing of berth, and its test, which needs neither
// a registry on the network nor one that somebody has started before.
package hermetic

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
)

// attempts is how often a registry is asked that is too busy to answer.
const attempts = 3

// Release gives an image of a registry, https://registry.example.com for example, another tag.
func Release(ctx context.Context, registry, repository, candidate, release string) error {
	base := registry + "/v2/" + repository + "/manifests/"
	mediaType, manifest, err := send(ctx, http.MethodGet, base+candidate, "", nil)
	if err != nil {
		return err
	}
	_, _, err = send(ctx, http.MethodPut, base+release, mediaType, manifest)
	return err
}

func send(ctx context.Context, method, url, mediaType string, body []byte) (string, []byte, error) {
	for attempt := 1; ; attempt++ {
		req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
		if err != nil {
			return "", nil, err
		}
		req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json")
		if mediaType != "" {
			req.Header.Set("Content-Type", mediaType)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return "", nil, err
		}
		content, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode < 300 {
			return resp.Header.Get("Content-Type"), content, err
		}
		if resp.StatusCode != http.StatusServiceUnavailable || attempt == attempts {
			return "", nil, fmt.Errorf("%s %s: %s: %.200s", method, url, resp.Status, content)
		}
	}
}
