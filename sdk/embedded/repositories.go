package embedded

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/ocilayout"
	"github.com/berthoci/berth/plugin"
)

// Repositories lists the repositories that have an image, in byte order.
func (m *Maintenance) Repositories(ctx context.Context) ([]string, error) {
	return m.repositories(ctx)
}

func repositoriesOf(layout *ocilayout.Layout) func(context.Context) ([]string, error) {
	return func(ctx context.Context) (names []string, err error) {
		for name, err := range layout.Repositories(ctx, "") {
			if err != nil {
				return nil, err
			}
			names = append(names, name)
		}
		return names, nil
	}
}

// repositoriesAt asks an owner over HTTP, at an address that is open for as long as that takes: the
// control plane has no lists.
func repositoriesAt(owner *host.Owner) func(context.Context) ([]string, error) {
	return func(ctx context.Context) (names []string, err error) {
		lease, err := owner.Lease(ctx, plugin.LeaseOptions{IdleTimeout: -1, Listen: &plugin.ListenOptions{ReadOnly: true, Token: rand.Text()}})
		if err != nil {
			return nil, err
		}
		defer lease.Close()
		return catalog(ctx, lease.Grant().Endpoint)
	}
}

// catalog lists the repositories that a registry has.
func catalog(ctx context.Context, at plugin.Endpoint) (names []string, err error) {
	for last := ""; ; last = names[len(names)-1] {
		page, err := catalogPage(ctx, at, last)
		if err != nil || len(page) == 0 {
			return names, err
		}
		names = append(names, page...)
	}
}

// catalogPage asks for the repositories after one. The connection ends with the answer: nobody else
// would end it.
func catalogPage(ctx context.Context, at plugin.Endpoint, last string) ([]string, error) {
	target := "http://" + at.Address + "/v2/_catalog?" + url.Values{"last": {last}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth("berth", at.Token)
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var page struct{ Repositories []string }
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil || resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("list of repositories: the registry answered %s", resp.Status)
	}
	return page.Repositories, nil
}
